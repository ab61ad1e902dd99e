/* How good a classifier of a few pictures will be, found from those pictures alone: the numbers of
 * export/estimate.py, and its sentences. Needs no TensorFlow.
 *
 *     letter   meaning
 *     B        support pictures     N   classes     M   answers in all rounds
 */
#ifndef ESTIMATE_H
#define ESTIMATE_H

#include <stddef.h>

/* Rounds that leave pictures out. */
typedef struct {
  unsigned char **left; /* of each round 1 for a picture that it leaves out, [rounds][B] */
  size_t count;
} round_list;

/* What a model said of the pictures that were left out, over all rounds. */
typedef struct {
  size_t count;   /* M */
  size_t *places; /* of the picture in the support set, [M] */
  double *logits; /* of each class, [M, N] */
  double *near;   /* how near each was to the classes, [M] */
  double *kept;   /* the share of its class's pictures that the model had adapted to, [M] */
} left_answers;

/* What can be expected. */
typedef struct {
  double accuracy, low, high; /* and its 95 % interval */
  size_t number;              /* support pictures that it comes from; 0 where nothing is known */
  double *near;               /* of those pictures, as it is to be expected in use, sorted, [number] */
  size_t *looks_like;         /* of each picture that its class contradicts another class, else N, [B] */
} expected;

/* Returns rounds, at most so many; each leaves out some pictures of every class that has two or more.
 * numbers: the classes, in [0, num_classes), [count]. */
round_list rounds_of(const size_t *numbers, size_t count, size_t num_classes, size_t most);
void free_rounds(round_list *rounds);

/* Returns what can be expected; has_features says that nearness is a cosine. */
expected expect(const size_t *numbers, size_t count, size_t num_classes, left_answers *answers,
                int has_features);
void free_expected(expected *found);

/* Returns the nearness below which a picture is of none of the classes. */
double nearness_limit(const expected *found, double false_alarms);

/* Says on stderr what is expected. names: of the pictures, [B]; labels: their classes, [B];
 * classes: [N]. */
void say_expected(const expected *found, const char *const *names, const char *const *labels,
                  size_t count, const char *const *classes, size_t num_classes);

#endif
