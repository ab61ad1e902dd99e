#include "estimate.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "folders.h"

/* The constants of export/estimate.py. */
static const double z_95 = 1.959964, scatter = 1.4, smoothing = 0.25, own = 0.1;
enum { FEWEST = 4, NAMES = 5 };

/* NumPy's random numbers of default_rng(0) (O'Neill 2014, PCG XSL RR 128/64). With them each round leaves out
 * the same pictures as in the Python clients. */
__extension__ typedef unsigned __int128 uint128;

typedef struct {
  uint128 state;
  uint32_t spare;
  int has_spare;
} generator;

static uint128 whole(uint64_t high, uint64_t low) { return (uint128)high << 64 | low; }

static uint32_t next_number(generator *from) {
  if (from->has_spare) {
    from->has_spare = 0;
    return from->spare;
  }
  from->state = from->state * whole(2549297995355413924u, 4865540595714422341u) +
                whole(0x418ddadb3af71a82u, 0x588133bc447873a9u);
  uint64_t mixed = (uint64_t)(from->state >> 64) ^ (uint64_t)from->state;
  unsigned turn = (unsigned)(from->state >> 122);
  mixed = mixed >> turn | mixed << (-turn & 63);
  from->spare = (uint32_t)(mixed >> 32);
  from->has_spare = 1;
  return (uint32_t)mixed;
}

/* Returns a random number in [0, most], all equally likely. Draws numbers of as many bits as `most` has, until
 * one is not above it. */
static uint32_t number_to(generator *from, uint32_t most) {
  uint32_t mask = most, found;
  for (unsigned shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
  while ((found = next_number(from) & mask) > most) continue;
  return found;
}

static size_t size_of(size_t number, const size_t *numbers, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; ++i) size += numbers[i] == number;
  return size;
}

/* Leaves out each picture of a class once in each group of rounds. The pictures are shuffled and divided into
 * equal parts. Round r leaves out part r modulo the number of parts. */
static void leave_out_class(generator *from, size_t number, const size_t *numbers, size_t count,
                            unsigned char **left, size_t rounds) {
  size_t size = size_of(number, numbers, count), parts = size < rounds ? size : rounds, at = 0;
  if (size < 2) return;
  size_t *places = checked(calloc(size, sizeof *places));
  for (size_t i = 0; i < count; ++i)
    if (numbers[i] == number) places[at++] = i;
  for (size_t i = size - 1; i > 0; --i) {
    size_t j = number_to(from, (uint32_t)i), place = places[i];
    places[i] = places[j];
    places[j] = place;
  }
  at = 0;
  for (size_t part = 0; part < parts; ++part)
    for (size_t end = at + size / parts + (part < size % parts); at < end; ++at)
      for (size_t turn = part; turn < rounds; turn += parts) left[turn][places[at]] = 1;
  free(places);
}

round_list rounds_of(const size_t *numbers, size_t count, size_t num_classes, size_t most) {
  round_list rounds = {NULL, 0};
  generator from = {whole(0x1aa1b5345996452du, 0x09585eb7a69561e3u), 0, 0};
  size_t largest = 0, needed;
  for (size_t i = 0; i < num_classes; ++i) {
    size_t size = size_of(i, numbers, count);
    if (size > largest) largest = size;
  }
  if (num_classes < 2 || largest < 2) return rounds;
  needed = largest < most ? largest : most;
  rounds.count = most / needed * needed;
  rounds.left = checked(calloc(rounds.count, sizeof *rounds.left));
  for (size_t i = 0; i < rounds.count; ++i) rounds.left[i] = checked(calloc(count, 1));
  for (size_t first = 0; first < rounds.count; first += needed)
    for (size_t i = 0; i < num_classes; ++i)
      leave_out_class(&from, i, numbers, count, rounds.left + first, needed);
  return rounds;
}

void free_rounds(round_list *rounds) {
  for (size_t i = 0; i < rounds->count; ++i) free(rounds->left[i]);
  free(rounds->left);
}

static double mean_of(const double *values, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += values[i];
  return sum / (double)count;
}

/* Writes softmax(logits / T), [N]. */
static void softmax(const double *logits, double temperature, double *into, size_t count) {
  double highest = logits[0], sum = 0;
  for (size_t i = 1; i < count; ++i) highest = logits[i] > highest ? logits[i] : highest;
  for (size_t i = 0; i < count; ++i) sum += into[i] = exp((logits[i] - highest) / temperature);
  for (size_t i = 0; i < count; ++i) into[i] /= sum;
}

static size_t largest_of(const double *values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; ++i)
    if (values[i] > values[best]) best = i;
  return best;
}

/* Returns the temperature T that minimizes the mean of -log softmax(logits / T) at the right classes. A quarter
 * of a picture of unknown class is added. */
static double best_temperature(const left_answers *of, const size_t *numbers, size_t ways) {
  double spread = 0, low = -9, high = 9, unknown = smoothing / (double)of->count;
  double *row = checked(calloc(ways, sizeof *row));
  for (size_t i = 0; i < of->count; ++i) {
    const double *logits = of->logits + i * ways;
    spread += (logits[largest_of(logits, ways)] - mean_of(logits, ways)) / (double)of->count;
  }
  if (spread < 1e-12) spread = 1e-12;
  for (int step = 0; step < 60; ++step) {
    double middle = (low + high) / 2, slope = 0;
    for (size_t i = 0; i < of->count; ++i) {
      const double *logits = of->logits + i * ways;
      double highest = logits[largest_of(logits, ways)];
      softmax(logits, spread * exp(-middle), row, ways);
      for (size_t k = 0; k < ways; ++k) {
        double target = (numbers[of->places[i]] == k) * (1 - unknown) + unknown / (double)ways;
        slope += (row[k] - target) * (logits[k] - highest);
      }
    }
    *(slope > 0 ? &high : &low) = middle;
  }
  free(row);
  return spread * exp(-(low + high) / 2);
}

/* Returns a factor on the nearness of a picture. With it the nearness is that to the mean of all pictures of a
 * class, not of only those that a round kept. */
static double nearer_in_use(double near, double kept, double per_class) {
  double square = (near > 1e-3 ? near : 1e-3) * (near > 1e-3 ? near : 1e-3);
  double linear = square * (kept - 1);
  double r = (linear + sqrt(linear * linear + 4 * kept * square)) / (2 * kept);
  if (r > 1) r = 1;
  return sqrt((r + (1 - r) / kept) / (r + (1 - r) / per_class));
}

static int by_value(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

/* Sets Wilson's 95 % interval of the accuracy over `number` trials. */
static void set_interval(expected *found, double number) {
  double share = found->accuracy, square = z_95 * z_95;
  double middle = share + square / (2 * number), all = 1 + square / number;
  double half = z_95 * sqrt(share * (1 - share) / number + square / (4 * number * number));
  found->low = fmax(0, (middle - half) / all);
  found->high = fmin(1, (middle + half) / all);
}

/* Averages the answers for one picture. Returns whether the picture was ever left out. */
static int take_picture(expected *found, size_t place, const size_t *numbers, size_t ways,
                        const left_answers *of, double temperature, double *hits) {
  double *row = checked(calloc(2 * ways, sizeof *row)), *sums = row + ways, near = 0, right = 0;
  size_t times = 0;
  for (size_t i = 0; i < of->count; ++i) {
    if (of->places[i] != place) continue;
    const double *logits = of->logits + i * ways;
    softmax(logits, temperature, row, ways);
    for (size_t k = 0; k < ways; ++k) sums[k] += row[k];
    right += largest_of(logits, ways) == numbers[place];
    near += of->near[i];
    ++times;
  }
  if (times) {
    found->near[found->number++] = near / (double)times;
    *hits += right / (double)times;
    if (sums[numbers[place]] / (double)times < own) found->looks_like[place] = largest_of(sums, ways);
  }
  free(row);
  return times > 0;
}

expected expect(const size_t *numbers, size_t count, size_t num_classes, left_answers *answers,
                int has_features) {
  expected found = {.low = 0, .high = 1, .accuracy = NAN};
  found.near = checked(calloc(count, sizeof *found.near));
  found.looks_like = checked(calloc(count, sizeof *found.looks_like));
  for (size_t i = 0; i < count; ++i) found.looks_like[i] = num_classes;
  if (!answers->count) return found;
  double kept = mean_of(answers->kept, answers->count), per_class = 0, hits = 0;
  for (size_t i = 0; i < answers->count; ++i)
    per_class += (double)size_of(numbers[answers->places[i]], numbers, count) / (double)answers->count;
  double times = nearer_in_use(mean_of(answers->near, answers->count), per_class * kept, per_class);
  for (size_t i = 0; has_features && i < answers->count; ++i) answers->near[i] *= times;
  double temperature = best_temperature(answers, numbers, num_classes);
  for (size_t i = 0; i < count; ++i)
    take_picture(&found, i, numbers, num_classes, answers, temperature, &hits);
  double share = hits / (double)found.number, root = sqrt(1 / kept);
  found.accuracy = root * share / (1 - share + root * share);
  set_interval(&found, (double)found.number / scatter);
  qsort(found.near, found.number, sizeof *found.near, by_value);
  return found;
}

void free_expected(expected *found) {
  free(found->near);
  free(found->looks_like);
}

/* Returns a quantile of the normal distribution, found by bisection. */
static double normal_quantile(double probability) {
  double low = -40, high = 40;
  for (int step = 0; step < 100; ++step) {
    double middle = (low + high) / 2;
    *(erfc(-middle / sqrt(2)) / 2 > probability ? &high : &low) = middle;
  }
  return (low + high) / 2;
}

/* Returns a quantile of Student's t distribution (Abramowitz & Stegun 26.7.5). */
static double student_quantile(double probability, double freedom) {
  double z = normal_quantile(probability), z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / 4 / freedom + (5 * z5 + 16 * z3 + 3 * z) / 96 / (freedom * freedom) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / 384 / (freedom * freedom * freedom);
}

double nearness_limit(const expected *found, double false_alarms) {
  double number = (double)found->number, place = false_alarms * (number + 1), square = 0;
  if (found->number < FEWEST) return -INFINITY;
  if (place >= 1) {
    size_t before = (size_t)floor(place);
    if (before >= found->number) return found->near[found->number - 1];
    double low = found->near[before - 1], high = found->near[before];
    return low + (place - (double)before) * (high - low);
  }
  double mean = mean_of(found->near, found->number);
  for (size_t i = 0; i < found->number; ++i)
    square += (found->near[i] - mean) * (found->near[i] - mean);
  double bound = student_quantile(1 - false_alarms, number - 1) * sqrt(1 + 1 / number);
  return mean - bound * sqrt(square / (number - 1));
}

void say_expected(const expected *found, const char *const *names, const char *const *labels,
                  size_t count, const char *const *classes, size_t num_classes) {
  size_t said = 0;
  if (!found->number) {
    fputs("How many answers will be right cannot be estimated: that takes two classes, and two pictures "
          "of one of them.\n", stderr);
    return;
  }
  fprintf(stderr,
          "About %.0f%% of the answers will be right (95 %% interval %.0f%% to %.0f%%, from %zu support "
          "pictures), if the pictures are like those of the support set.\n",
          100 * found->accuracy, 100 * found->low, 100 * found->high, found->number);
  for (size_t i = 0; i < count; ++i) {
    if (found->looks_like[i] == num_classes || ++said > NAMES) continue;
    fprintf(stderr, "%s%s (%s) looks like %s", said == 1 ? "Perhaps in the wrong class: " : "; ", names[i],
            labels[i], classes[found->looks_like[i]]);
  }
  if (said > NAMES) fprintf(stderr, "; and %zu more", said - NAMES);
  if (said) fputs(".\n", stderr);
}
