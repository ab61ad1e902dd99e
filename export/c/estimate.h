/* Estimates the accuracy of a classifier from its support pictures alone, with the numbers and the sentences
 * of export/estimate.py. Needs no TensorFlow.
 *
 *     letter   meaning
 *     B        support pictures     N   classes     M   answers in all rounds
 */
#ifndef ESTIMATE_H
#define ESTIMATE_H

#include <stddef.h>

/* Rounds that leave pictures out. */
typedef struct {
  unsigned char **left; /* 1 if the round leaves the picture out, else 0, [rounds][B] */
  size_t count;         /* number of rounds */
} round_list;

/* The answers of the model for the pictures that were left out, over all rounds. */
typedef struct {
  size_t count;   /* M */
  size_t *places; /* the place of the picture in the support set, [M] */
  double *logits; /* the logit of each class, [M, N] */
  double *near;   /* the nearness of the picture to the classes, [M] */
  double *kept;   /* the share of the pictures of its class that the model had adapted to, [M] */
} left_answers;

/* The estimate. */
typedef struct {
  double accuracy, low, high; /* the accuracy and its 95 % interval */
  size_t number;              /* support pictures that were left out once or more; 0 without an estimate */
  double *near;               /* the nearness of such pictures to be expected in use, sorted, [number] */
  size_t *looks_like;         /* the class that a picture with a doubtful label looks like, else N, [B] */
} expected;

/* Returns at most `most` rounds. Each leaves out some pictures of every class that has two or more.
 * numbers: the classes, in [0, num_classes), [count]. */
round_list rounds_of(const size_t *numbers, size_t count, size_t num_classes, size_t most);
void free_rounds(round_list *rounds);

/* Returns the estimate. has_features: whether the nearness is a cosine of features. */
expected expect(const size_t *numbers, size_t count, size_t num_classes, left_answers *answers,
                int has_features);
void free_expected(expected *found);

/* Returns the limit: a picture whose nearness is below it belongs to none of the classes. */
double nearness_limit(const expected *found, double false_alarms);

/* Prints the estimate on stderr. names: names of the pictures, [B]; labels: their classes, [B]; classes: names
 * of the classes, [N]. */
void say_expected(const expected *found, const char *const *names, const char *const *labels,
                  size_t count, const char *const *classes, size_t num_classes);

#endif
