#include "remarks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "folders.h"

/* The constants of export/remarks.py. */
enum {
  BLANK = 16, /* levels between the darkest and the lightest pixel */
  FRAME = 14, /* a side divided by the width of the frame */
  NAMES = 5,  /* names in a sentence */
  UNEQUAL = 5 /* ratio of the sizes of two classes */
};
static const float same_levels = 4.0f; /* levels between thumbnails, root mean square */
static const float same_share = 0.25f; /* the same as a share of the deviation of a thumbnail, if it is pale */
static const double plain_levels = 32.0, plain_share = 0.8; /* levels around the median of a plain frame */
static const double to_be_seen = 2.0, most = 0.75;

/* A picture that a warning names. other: the picture that it is the same as, or NULL. */
typedef struct {
  const look *one, *other;
} found;

typedef struct {
  found *of;
  size_t count;
} found_list;

static void add(found_list *list, const look *one, const look *other) {
  list->of = checked(realloc(list->of, (list->count + 1) * sizeof *list->of));
  list->of[list->count++] = (found){one, other};
}

/* Prints names as "a (class) is b (class); c ...; and 3 more", and frees the list. */
static void list_names(found_list *list, const char *between, int one_class, int other_class) {
  for (size_t i = 0; i < list->count && i < NAMES; ++i) {
    const look *one = list->of[i].one, *other = list->of[i].other;
    fprintf(stderr, "%s%s", i ? "; " : "", one->name);
    if (one_class && one->label) fprintf(stderr, " (%s)", one->label);
    if (other) fprintf(stderr, "%s%s", between, other->name);
    if (other && other_class) fprintf(stderr, " (%s)", other->label);
  }
  if (list->count > NAMES) fprintf(stderr, "; and %zu more", list->count - NAMES);
  free(list->of);
}

/* Begins a warning with "1 query picture is", or "2 query pictures are". */
static void say_number(size_t count, const char *kind) {
  fprintf(stderr, "warning: %zu %s picture%s", count, kind, count == 1 ? " is" : "s are");
}

static void make_thumbnail(look *into, const float *pixels, size_t height, size_t width,
                           size_t channels) {
  size_t rows = height < LOOK_SIDE ? height : LOOK_SIDE;
  size_t columns = width < LOOK_SIDE ? width : LOOK_SIDE;
  into->size = 0;
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j)
      for (size_t k = 0; k < channels; ++k) {
        size_t top = i * height / rows, bottom = (i + 1) * height / rows;
        size_t left = j * width / columns, right = (j + 1) * width / columns;
        double sum = 0;
        for (size_t y = top; y < bottom; ++y)
          for (size_t x = left; x < right; ++x) sum += pixels[(y * width + x) * channels + k];
        into->thumbnail[into->size++] =
            (unsigned char)lrint(sum / (double)((bottom - top) * (right - left)));
      }
}

static int by_level(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static double gray_at(const float *pixel, size_t channels) {
  double sum = 0;
  for (size_t k = 0; k < channels; ++k) sum += pixel[k];
  return sum / (double)channels;
}

static int figure_of(const float *pixels, size_t height, size_t width, size_t channels) {
  size_t rows = height < FRAME ? 1 : height / FRAME, columns = width < FRAME ? 1 : width / FRAME;
  size_t count = 0, plain = 0;
  double *frame = checked(calloc(height * width, sizeof *frame)), mean = 0, ground;
  for (size_t y = 0; y < height; ++y)
    for (size_t x = 0; x < width; ++x) {
      double gray = gray_at(pixels + (y * width + x) * channels, channels);
      mean += gray / (double)(height * width);
      if (y < rows || y + rows >= height || x < columns || x + columns >= width)
        frame[count++] = gray;
    }
  qsort(frame, count, sizeof *frame, by_level);
  ground = (frame[(count - 1) / 2] + frame[count / 2]) / 2;
  for (size_t i = 0; i < count; ++i) plain += fabs(frame[i] - ground) <= plain_levels;
  free(frame);
  if ((double)plain < plain_share * (double)count || fabs(mean - ground) < to_be_seen) return 0;
  return mean > ground ? 1 : -1;
}

look look_at(const char *name, const char *label, const float *pixels, size_t height, size_t width,
             size_t channels) {
  look seen = {.name = name, .label = label};
  float low = pixels[0], high = pixels[0];
  for (size_t i = 0; i < height * width * channels; ++i) {
    low = pixels[i] < low ? pixels[i] : low;
    high = pixels[i] > high ? pixels[i] : high;
  }
  make_thumbnail(&seen, pixels, height, width, channels);
  seen.is_blank = high - low <= BLANK;
  seen.figure = seen.is_blank ? 0 : figure_of(pixels, height, width, channels);
  return seen;
}

/* Returns the limit of the mean squared difference below which another thumbnail shows the same picture. */
static float most_between(const look *one) {
  double mean = 0, square = 0;
  for (size_t i = 0; i < one->size; ++i) mean += one->thumbnail[i] / (double)one->size;
  for (size_t i = 0; i < one->size; ++i)
    square += (one->thumbnail[i] - mean) * (one->thumbnail[i] - mean) / (double)one->size;
  float levels = fminf(same_levels, same_share * (float)sqrt(square));
  return levels * levels;
}

static int are_same(const look *one, const look *other) {
  float limit = most_between(other) * (float)one->size, sum = 0;
  if (one->is_blank || other->is_blank) return 0;
  for (size_t i = 0; i < one->size && sum <= limit; ++i) {
    float difference = (float)one->thumbnail[i] - (float)other->thumbnail[i];
    sum += difference * difference;
  }
  return sum <= limit;
}

static size_t pictures_of(const char *label, const char *const *labels, size_t count) {
  size_t number = 0;
  for (size_t i = 0; i < count; ++i) number += strcmp(labels[i], label) == 0;
  return number;
}

void warn_of_sizes(const char *const *labels, size_t count) {
  size_t few = 0, many = 0, fewest = count, largest = 0;
  for (size_t i = 0; i < count; ++i) {
    size_t number = pictures_of(labels[i], labels, count);
    if (number < fewest) fewest = number, few = i;
    if (number > largest) largest = number, many = i;
  }
  if (fewest == count) {
    fprintf(stderr, "warning: %s is the only class: every picture gets this answer.\n",
            labels[many]);
  } else if (largest >= UNEQUAL * fewest) {
    fprintf(stderr,
            "warning: The classes differ in size: %s has %zu of the support pictures, %s has %zu. The "
            "answers may lean towards the larger ones: take about as many of each.\n",
            labels[few], fewest, labels[many], largest);
  }
}

static void warn_of_blank(const look *looks, size_t count, const char *kind) {
  found_list blank = {NULL, 0};
  for (size_t i = 0; i < count; ++i)
    if (looks[i].is_blank) add(&blank, &looks[i], NULL);
  if (!blank.count) return;
  say_number(blank.count, kind);
  fprintf(stderr, " blank, or nearly so (no two pixels differ by more than %d of 255 levels): ", BLANK);
  list_names(&blank, "", 1, 0);
  fputs(". The model can neither learn from that nor classify it.\n", stderr);
}

/* Returns the pictures of a support set that are the same as an earlier one, of their class or of another. */
static found_list same_within(const look *support, size_t count, int in_their_class) {
  found_list list = {NULL, 0};
  for (size_t i = 0; i < count; ++i)
    for (size_t j = 0; j < i; ++j)
      if ((strcmp(support[i].label, support[j].label) == 0) == in_their_class &&
          are_same(&support[i], &support[j])) {
        add(&list, &support[i], &support[j]);
        break;
      }
  return list;
}

void warn_of_support(const look *support, size_t count) {
  warn_of_blank(support, count, "support");
  found_list elsewhere = same_within(support, count, 0), again = same_within(support, count, 1);
  if (elsewhere.count) {
    fputs("warning: The same picture is in two classes: ", stderr);
    list_names(&elsewhere, " and ", 1, 1);
    fputs(". The model cannot learn from it which is right: remove it from one.\n", stderr);
  }
  if (again.count) {
    fputs("warning: The same picture is in a class more than once: ", stderr);
    list_names(&again, " is ", 1, 0);
    fputs(". It counts each time, and adds nothing new.\n", stderr);
  }
}

static void warn_of_inverted(const look *support, size_t support_count, const look *queries,
                             size_t count) {
  for (int figure = -1; figure <= 1; figure += 2) {
    found_list opposite = {NULL, 0};
    size_t alike = 0;
    for (size_t i = 0; i < support_count; ++i) alike += support[i].figure == figure;
    for (size_t i = 0; i < count; ++i)
      if (queries[i].figure == -figure) add(&opposite, &queries[i], NULL);
    if ((double)alike >= most * (double)support_count && opposite.count &&
        (double)opposite.count >= most * (double)count) {
      fprintf(stderr,
              "warning: The figures of the support pictures are %s than their ground, those of %zu of "
              "%zu query pictures %s: ",
              figure < 0 ? "darker" : "lighter", opposite.count, count,
              figure < 0 ? "lighter" : "darker");
      list_names(&opposite, "", 0, 0);
      fputs(". The model takes them for different things: invert one of the two.\n", stderr);
      return;
    }
    free(opposite.of);
  }
}

void warn_of_queries(const look *support, size_t support_count, const look *queries, size_t count) {
  found_list known = {NULL, 0};
  warn_of_blank(queries, count, "query");
  for (size_t i = 0; i < count; ++i)
    for (size_t j = 0; j < support_count; ++j)
      if (are_same(&queries[i], &support[j])) {
        add(&known, &queries[i], &support[j]);
        break;
      }
  if (known.count) {
    say_number(known.count, "query");
    fputs(" among the support pictures: ", stderr);
    list_names(&known, " is ", 0, 1);
    fputs(". An accuracy that counts them is too high.\n", stderr);
  }
  warn_of_inverted(support, support_count, queries, count);
}
