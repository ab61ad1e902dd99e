/* Adapts an exported model to folders of labelled images and classifies others with it.
 *
 *     ./adapt [--num_steps T] [--skip_corrupt] MODEL SUPPORT IMAGE...
 *
 * MODEL    the folder that `python -m tf_metalstm.export` wrote
 * SUPPORT  one folder a class, with a few images in or below each: JPEG, PNG, GIF, BMP or WebP
 * IMAGE    a file to classify, or a folder of such files
 *
 * --num_steps T    updates, 0 to 1000; by default as many as in training
 * --skip_corrupt   leaves files out that cannot be read, and says so
 *
 * Equal files in two classes or twice in one, support files among the images, and classes of very
 * different sizes are warned of. (That a picture is blank or inverted is not seen here, as the Python
 * clients see it: the files are decoded inside the model.)
 *
 * Writes a table with tabs between: file, predicted class, the probability of every class. What
 * TensorFlow's library finds on the machine it tells on stderr before anything else runs.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "few_shot.h"
#include "folders.h"

enum {
  MAX_STEPS = 1000,
  WARNED = 5, /* pairs of files that a warning names */
  UNEQUAL = 5 /* times as many pictures as in another class */
};

static const char usage[] =
    "usage: adapt [--num_steps T] [--skip_corrupt] MODEL SUPPORT IMAGE...\n"
    "SUPPORT holds one folder of images a class; IMAGE is a file or a folder of files; images are\n"
    "JPEG, PNG, GIF, BMP or WebP files.\n";

static fs_image read_file(const char *path) {
  struct stat facts;
  fs_image image = {NULL, 0};
  FILE *file = fopen(path, "rb");
  if (!file || fstat(fileno(file), &facts)) fail(path, strerror(errno));
  if (!S_ISREG(facts.st_mode)) fail(path, "expected an image file");
  image.size = (size_t)facts.st_size;
  void *data = checked(malloc(image.size + 1));
  if (fread(data, 1, image.size, file) != image.size) fail(path, "cannot be read to its end");
  fclose(file);
  image.data = data;
  return image;
}

/* Labelled images, as fs_adapt takes them, and their files; `size` of them. */
typedef struct {
  fs_image *images;
  const char **labels;
  const char **paths;
  size_t size;
} support_set;

/* Reads them shot by shot, one image of each class and then the next of each, as in training. */
static support_set read_support(const class_list *classes) {
  size_t total = 0;
  for (size_t i = 0; i < classes->count; ++i) total += classes->classes[i].files.count;
  support_set support = {checked(calloc(total, sizeof *support.images)),
                         checked(calloc(total, sizeof *support.labels)),
                         checked(calloc(total, sizeof *support.paths)), 0};
  for (size_t shot = 0; support.size < total; ++shot)
    for (size_t i = 0; i < classes->count; ++i) {
      const image_class *one = &classes->classes[i];
      if (shot >= one->files.count) continue;
      support.images[support.size] = read_file(one->files.paths[shot]);
      support.labels[support.size] = one->name;
      support.paths[support.size++] = one->files.paths[shot];
    }
  return support;
}

/* Returns what an error says of one image of a list, as "support_images[3]: the file is empty", and its
 * place; NULL for another error. */
static const char *of_one(const char *error, const char *list, size_t *place) {
  size_t length = strlen(list);
  char *end;
  if (strncmp(error, list, length) || error[length] != '[') return NULL;
  *place = strtoul(error + length + 1, &end, 10);
  return strncmp(end, "]: ", 3) ? NULL : end + 3;
}

static void say_skipped(const char *path, const char *why) {
  fprintf(stderr, "skipped: %s: %s\n", path, why);
}

static void leave_out(support_set *support, size_t place) {
  size_t after = --support->size - place, of_class = 0;
  const char *label = support->labels[place];
  free((void *)support->images[place].data);
  memmove(support->images + place, support->images + place + 1, after * sizeof *support->images);
  memmove(support->labels + place, support->labels + place + 1, after * sizeof *support->labels);
  memmove(support->paths + place, support->paths + place + 1, after * sizeof *support->paths);
  for (size_t i = 0; i < support->size; ++i) of_class += strcmp(support->labels[i], label) == 0;
  if (!of_class) fail(label, "none of the images of this class can be read");
}

/* Adapts the model; a file that it cannot read is named, or left out on request. */
static fs_classifier *adapted(const fs_model *model, support_set *support, int num_steps,
                              int skip_corrupt, const char *folder) {
  char error[FS_ERROR_SIZE];
  for (;;) {
    size_t place;
    fs_classifier *classifier = fs_adapt(model, support->images, support->labels, support->size,
                                         num_steps, error);
    if (classifier) return classifier;
    const char *why = of_one(error, "support_images", &place);
    if (!why || place >= support->size) fail(folder, error);
    if (!skip_corrupt) fail(support->paths[place], why);
    say_skipped(support->paths[place], why);
    leave_out(support, place);
  }
}

/* A warning that names pairs of files. */
typedef struct {
  const char *what;
  size_t count;
} warning;

static void warn_of(warning *found, const char *one, const char *other) {
  if (!found->count) fprintf(stderr, "warning: %s:", found->what);
  if (found->count < WARNED)
    fprintf(stderr, "%s %s is %s", found->count ? ";" : "", one, other);
  ++found->count;
}

static void end_warning(const warning *found) {
  if (found->count > WARNED) fprintf(stderr, "; and %zu more", found->count - WARNED);
  if (found->count) fputs(".\n", stderr);
}

static int are_equal(const fs_image *one, const fs_image *other) {
  return one->size == other->size && memcmp(one->data, other->data, one->size) == 0;
}

/* Warns of files that are there again, in their class or in another one. */
static void warn_of_equal_files(const support_set *support, int in_their_class) {
  warning found = {in_their_class ? "the same picture is in a class more than once"
                                  : "the same picture is in two classes",
                   0};
  for (size_t i = 0; i < support->size; ++i)
    for (size_t j = 0; j < i; ++j)
      if ((strcmp(support->labels[i], support->labels[j]) == 0) == in_their_class &&
          are_equal(&support->images[i], &support->images[j])) {
        warn_of(&found, support->paths[i], support->paths[j]);
        break;
      }
  end_warning(&found);
}

/* Warns of a class of few pictures beside one of many, or of one alone. */
static void warn_of_sizes(const class_list *list) {
  const image_class *few = list->classes, *many = list->classes;
  for (size_t i = 0; i < list->count; ++i) {
    if (list->classes[i].files.count < few->files.count) few = &list->classes[i];
    if (list->classes[i].files.count > many->files.count) many = &list->classes[i];
  }
  if (list->count == 1)
    fprintf(stderr, "warning: %s is the only class: whatever is asked about, that is the answer.\n",
            few->name);
  else if (many->files.count >= UNEQUAL * few->files.count)
    fprintf(stderr,
            "warning: the classes differ in size: %s has %zu of the support pictures, %s has %zu.\n",
            few->name, few->files.count, many->name, many->files.count);
}

/* Warns of images to classify that are support files. */
static void warn_of_known(const support_set *support, const path_list *queries) {
  warning found = {"images to classify are among the support pictures", 0};
  for (size_t i = 0; i < queries->count; ++i) {
    fs_image image = read_file(queries->paths[i]);
    for (size_t j = 0; j < support->size; ++j)
      if (are_equal(&image, &support->images[j])) {
        warn_of(&found, queries->paths[i], support->paths[j]);
        break;
      }
    free((void *)image.data);
  }
  end_warning(&found);
}

/* Writes the row of a file; returns 0 where it was left out. */
static int print_answer(const fs_classifier *classifier, const char *path, int skip_corrupt) {
  char error[FS_ERROR_SIZE];
  size_t num_classes = fs_num_classes(classifier), best = 0, place;
  fs_image image = read_file(path);
  float *probabilities = checked(calloc(num_classes, sizeof *probabilities));
  int failed = fs_predict(classifier, &image, 1, probabilities, error);
  if (failed) {
    const char *why = of_one(error, "query_images", &place);
    if (!why || !skip_corrupt) fail(path, why ? why : error);
    say_skipped(path, why);
  } else {
    for (size_t i = 1; i < num_classes; ++i)
      if (probabilities[i] > probabilities[best]) best = i;
    printf("%s\t%s", path, fs_class_name(classifier, best));
    for (size_t i = 0; i < num_classes; ++i) printf("\t%.9g", probabilities[i]);
    printf("\n");
  }
  free(probabilities);
  free((void *)image.data);
  return !failed;
}

/* Starts the program once more with oneDNN switched on, unless the user has said otherwise: TensorFlow's
 * library reads that before `main`, and by itself leaves it off where there is no AVX-512. */
static void take_kernels_of_training(char **argv) {
  if (getenv("TF_ENABLE_ONEDNN_OPTS")) return;
  setenv("TF_ENABLE_ONEDNN_OPTS", "1", 1);
  execv("/proc/self/exe", argv);
}

static int steps_of(const char *text) {
  char *end;
  long steps = text ? strtol(text, &end, 10) : -1;
  if (!text || *end || end == text || steps < 0 || steps > MAX_STEPS)
    fail("--num_steps", "expected a number of updates, 0 to 1000");
  return (int)steps;
}

int main(int argc, char **argv) {
  char error[FS_ERROR_SIZE];
  int num_steps = FS_DEFAULT_STEPS, skip_corrupt = 0, first = 1;
  take_kernels_of_training(argv);
  for (; first < argc && strncmp(argv[first], "--", 2) == 0; ++first) {
    if (strcmp(argv[first], "--skip_corrupt") == 0) {
      skip_corrupt = 1;
    } else if (strcmp(argv[first], "--num_steps") == 0) {
      num_steps = steps_of(argv[++first]);
    } else {
      fail(argv[first], "is none of --num_steps and --skip_corrupt");
    }
  }
  if (argc - first < 3) {
    fputs(usage, stderr);
    return 2;
  }
  char *folder = user_path(argv[first]), *root = user_path(argv[first + 1]);
  class_list classes = read_classes(root);
  path_list queries = read_queries(argv + first + 2, (size_t)(argc - first - 2));
  support_set support = read_support(&classes);
  warn_of_sizes(&classes);
  warn_of_equal_files(&support, 0);
  warn_of_equal_files(&support, 1);
  warn_of_known(&support, &queries);
  fs_model *model = fs_load(folder, error);
  if (!model) fail(folder, error);
  fs_classifier *classifier = adapted(model, &support, num_steps, skip_corrupt, root);
  printf("file\tpredicted");
  for (size_t i = 0; i < fs_num_classes(classifier); ++i)
    printf("\t%s", fs_class_name(classifier, i));
  printf("\n");
  int answered = 0;
  for (size_t i = 0; i < queries.count; ++i)
    answered |= print_answer(classifier, queries.paths[i], skip_corrupt);
  if (!answered) fail("IMAGE", "none of the images to classify can be read");
  fs_free_classifier(classifier);
  fs_free_model(model);
  for (size_t i = 0; i < support.size; ++i) free((void *)support.images[i].data);
  free(support.images);
  free(support.labels);
  free(support.paths);
  free_paths(&queries);
  free_classes(&classes);
  free(folder);
  free(root);
  return EXIT_SUCCESS;
}
