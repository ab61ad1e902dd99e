#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "few_shot.h"
#include "folders.h"
#include "model.h"

enum { ROUNDS = 20, ROUNDS_BY_UPDATES = 5, AT_A_TIME = 64, MOST_SIDES = 8 };
static const double smallest = 1e-30; /* smaller probabilities count as this, so that logarithms are finite */

/* A support set, some of whose pictures are left out in each round. */
struct fs_trust {
  const fs_classifier *classifier;
  const fs_model *model;
  const fs_image *images;
  const char *const *labels;
  size_t *numbers; /* the class of each picture, by its number in the classifier */
  size_t count, ways, size;
  int num_steps;
  float *features;           /* [count, size] if the model has features, else NULL */
  int64_t sides[MOST_SIDES]; /* the shape of a tensor of features; the first is the number of pictures */
  int num_sides;
  double *means; /* the mean features of each class, of length 1, [ways, size] */
  expected found;
};

/* Computes the features [count, size] of pictures, in new memory. Returns 0, or -1 for an error. */
static int take_features(fs_trust *of, const fs_image *images, size_t count, float **into,
                         char *error) {
  *into = NULL;
  for (size_t at = 0; at < count; at += AT_A_TIME) {
    size_t number = count - at < AT_A_TIME ? count - at : AT_A_TIME;
    named_tensor files = {"images", model_images(images + at, number)}, answer = {"features", NULL};
    int bad = model_run(of->model, &of->model->features, &files, 1, &answer, 1, error);
    model_delete(&files, 1);
    if (bad) return -1;
    size_t bytes = TF_TensorByteSize(answer.tensor);
    of->size = bytes / sizeof **into / number;
    of->num_sides = TF_NumDims(answer.tensor) < MOST_SIDES ? TF_NumDims(answer.tensor) : MOST_SIDES;
    for (int i = 0; i < of->num_sides; ++i) of->sides[i] = TF_Dim(answer.tensor, i);
    if (!*into) *into = checked(malloc(count * of->size * sizeof **into));
    memcpy(*into + at * of->size, TF_TensorData(answer.tensor), bytes);
    model_delete(&answer, 1);
  }
  return 0;
}

/* Returns the places of the pictures that a round leaves out (wanted = 1) or keeps (0), and writes their
 * number. */
static size_t *places_of(const fs_trust *of, const unsigned char *left, int wanted, size_t *number) {
  size_t *places = checked(calloc(of->count, sizeof *places));
  *number = 0;
  for (size_t i = 0; i < of->count; ++i)
    if (left[i] == wanted) places[(*number)++] = i;
  return places;
}

static TF_Tensor *features_at(const fs_trust *of, const size_t *places, size_t number) {
  int64_t sides[MOST_SIDES];
  memcpy(sides, of->sides, sizeof sides);
  sides[0] = (int64_t)number;
  TF_Tensor *tensor = TF_AllocateTensor(TF_FLOAT, sides, of->num_sides,
                                        number * of->size * sizeof *of->features);
  float *into = tensor ? TF_TensorData(tensor) : NULL;
  for (size_t i = 0; into && i < number; ++i)
    memcpy(into + i * of->size, of->features + places[i] * of->size, of->size * sizeof *into);
  return tensor;
}

static TF_Tensor *numbers_at(const fs_trust *of, const size_t *places, size_t number) {
  int64_t side = (int64_t)number;
  TF_Tensor *tensor = TF_AllocateTensor(TF_INT32, &side, 1, number * sizeof(int32_t));
  int32_t *into = tensor ? TF_TensorData(tensor) : NULL;
  for (size_t i = 0; into && i < number; ++i) into[i] = (int32_t)of->numbers[places[i]];
  return tensor;
}

/* Adapts to the features of the pictures `rest`, and writes the logits [num_left, ways] of the pictures
 * `left`. */
static int ask_by_features(const fs_trust *of, const size_t *rest, size_t num_rest,
                           const size_t *left, size_t num_left, double *logits, char *error) {
  const signature *predict = &of->model->predict_features;
  named_tensor support[] = {{"support_features", features_at(of, rest, num_rest)},
                            {"support_labels", numbers_at(of, rest, num_rest)},
                            {"num_steps", model_number(of->num_steps)}};
  size_t num_support = of->num_steps == FS_DEFAULT_STEPS ? 2 : 3;
  named_tensor state[SIGNATURE_TENSORS] = {{"query_features", NULL}}, answer = {"logits", NULL};
  size_t number = 1;
  for (size_t i = 0; i < predict->num_inputs; ++i)
    if (strcmp(predict->inputs[i].name, "query_features") != 0)
      state[number++].name = predict->inputs[i].name;
  int bad = model_run(of->model, &of->model->adapt_features, support, num_support, state + 1,
                      number - 1, error);
  if (!bad) {
    state[0].tensor = features_at(of, left, num_left);
    bad = model_run(of->model, predict, state, number, &answer, 1, error);
  }
  if (!bad) {
    const float *found = TF_TensorData(answer.tensor);
    size_t columns = (size_t)TF_Dim(answer.tensor, 1);
    for (size_t i = 0; i < num_left; ++i)
      for (size_t k = 0; k < of->ways; ++k) logits[i * of->ways + k] = found[i * columns + k];
  }
  model_delete(support, 3);
  model_delete(state, number);
  model_delete(&answer, 1);
  return bad;
}

/* The same for a model that learns by updates. It takes the files. */
static int ask_by_files(const fs_trust *of, const size_t *rest, size_t num_rest, const size_t *left,
                        size_t num_left, double *logits, char *error) {
  fs_image *images = checked(calloc(of->count, sizeof *images));
  const char **labels = checked(calloc(of->count, sizeof *labels));
  float *probabilities = checked(calloc(num_left * of->ways, sizeof *probabilities));
  for (size_t i = 0; i < num_rest; ++i) images[i] = of->images[rest[i]], labels[i] = of->labels[rest[i]];
  fs_classifier *adapted = fs_adapt(of->model, images, labels, num_rest, of->num_steps, error);
  for (size_t i = 0; i < num_left; ++i) images[i] = of->images[left[i]];
  int bad = adapted ? fs_predict(adapted, images, num_left, probabilities, error) : -1;
  for (size_t k = 0; !bad && k < of->ways; ++k)
    for (size_t j = 0; j < of->ways; ++j) /* the classes of a round may have another order */
      if (strcmp(fs_class_name(adapted, j), fs_class_name(of->classifier, k)) == 0)
        for (size_t i = 0; i < num_left; ++i)
          logits[i * of->ways + k] = log(fmax(probabilities[i * of->ways + j], smallest));
  fs_free_classifier(adapted);
  free(images);
  free(labels);
  free(probabilities);
  return bad;
}

/* Scales a vector to length 1. */
static void make_unit(double *vector, size_t size) {
  double square = 0;
  for (size_t i = 0; i < size; ++i) square += vector[i] * vector[i];
  for (size_t i = 0; i < size; ++i) vector[i] /= fmax(sqrt(square), 1e-30);
}

/* Writes the means [ways, size] of the features of each class. Features and means are scaled to length 1. */
static void take_means(const fs_trust *of, const size_t *places, size_t number, double *means) {
  double *one = checked(calloc(of->size, sizeof *one));
  memset(means, 0, of->ways * of->size * sizeof *means);
  for (size_t i = 0; i < number; ++i) {
    for (size_t k = 0; k < of->size; ++k) one[k] = of->features[places[i] * of->size + k];
    make_unit(one, of->size);
    for (size_t k = 0; k < of->size; ++k) means[of->numbers[places[i]] * of->size + k] += one[k];
  }
  for (size_t i = 0; i < of->ways; ++i) make_unit(means + i * of->size, of->size);
  free(one);
}

/* Returns the cosine between features and the nearest mean. */
static double nearest(const fs_trust *of, const float *features, const double *means) {
  double *one = checked(calloc(of->size, sizeof *one)), best = -1;
  for (size_t k = 0; k < of->size; ++k) one[k] = features[k];
  make_unit(one, of->size);
  for (size_t i = 0; i < of->ways; ++i) {
    double cosine = 0;
    for (size_t k = 0; k < of->size; ++k) cosine += one[k] * means[i * of->size + k];
    best = fmax(best, cosine);
  }
  free(one);
  return best;
}

/* Returns the logarithm of the highest probability, softmax(logits). */
static double certainty(const double *logits, size_t ways) {
  double highest = logits[0], sum = 0;
  for (size_t i = 1; i < ways; ++i) highest = fmax(highest, logits[i]);
  for (size_t i = 0; i < ways; ++i) sum += exp(logits[i] - highest);
  return -log(sum);
}

/* Makes a round, and adds its answers. */
static int make_round(fs_trust *of, const unsigned char *left_out, left_answers *into, char *error) {
  size_t num_rest, num_left, first = into->count;
  size_t *rest = places_of(of, left_out, 0, &num_rest), *left = places_of(of, left_out, 1, &num_left);
  double *logits = into->logits + first * of->ways;
  int bad = (of->features ? ask_by_features : ask_by_files)(of, rest, num_rest, left, num_left,
                                                            logits, error);
  if (!bad && of->features) take_means(of, rest, num_rest, of->means);
  for (size_t i = 0; !bad && i < num_left; ++i) {
    size_t all = 0, kept = 0, number = of->numbers[left[i]];
    for (size_t j = 0; j < of->count; ++j) {
      all += of->numbers[j] == number;
      kept += of->numbers[j] == number && !left_out[j];
    }
    into->places[first + i] = left[i];
    into->kept[first + i] = (double)kept / (double)all;
    into->near[first + i] = of->features
                                ? nearest(of, of->features + left[i] * of->size, of->means)
                                : certainty(logits + i * of->ways, of->ways);
    ++into->count;
  }
  free(rest);
  free(left);
  return bad;
}

static int make_rounds(fs_trust *of, char *error) {
  int is_quick = of->features && !fs_makes_updates(of->model);
  round_list rounds = rounds_of(of->numbers, of->count, of->ways,
                                is_quick ? ROUNDS : ROUNDS_BY_UPDATES);
  size_t most = rounds.count * of->count + 1;
  left_answers answers = {0, checked(calloc(most, sizeof *answers.places)),
                          checked(calloc(most * of->ways, sizeof *answers.logits)),
                          checked(calloc(most, sizeof *answers.near)),
                          checked(calloc(most, sizeof *answers.kept))};
  int bad = 0;
  for (size_t i = 0; !bad && i < rounds.count; ++i)
    bad = make_round(of, rounds.left[i], &answers, error);
  if (!bad)
    of->found = expect(of->numbers, of->count, of->ways, &answers, of->features != NULL);
  free(answers.places);
  free(answers.logits);
  free(answers.near);
  free(answers.kept);
  free_rounds(&rounds);
  return bad;
}

fs_trust *fs_trust_of(const fs_classifier *classifier, const fs_image *images,
                      const char *const *labels, size_t count, int num_steps, char *error) {
  fs_trust *made = checked(calloc(1, sizeof *made));
  *made = (fs_trust){.classifier = classifier, .model = fs_model_of(classifier), .images = images,
                     .labels = labels, .count = count, .num_steps = num_steps};
  made->ways = fs_num_classes(classifier);
  made->numbers = checked(calloc(count, sizeof *made->numbers));
  for (size_t i = 0; i < count; ++i)
    while (strcmp(fs_class_name(classifier, made->numbers[i]), labels[i]) != 0) ++made->numbers[i];
  int bad = 0;
  if (made->model->features.num_inputs) {
    bad = take_features(made, images, count, &made->features, error);
    if (!bad) made->means = checked(calloc(made->ways * made->size, sizeof *made->means));
  }
  if (!bad) bad = make_rounds(made, error);
  if (!bad && made->features) {
    unsigned char *none = checked(calloc(count, 1));
    size_t number, *all = places_of(made, none, 0, &number);
    take_means(made, all, number, made->means);
    free(none);
    free(all);
  }
  if (!bad) return made;
  fs_free_trust(made);
  return NULL;
}

void fs_free_trust(fs_trust *trust) {
  if (!trust) return;
  free(trust->numbers);
  free(trust->features);
  free(trust->means);
  free_expected(&trust->found);
  free(trust);
}

const expected *fs_expected(const fs_trust *trust) { return &trust->found; }

int fs_nearness(fs_trust *trust, const fs_image *image, const float *probabilities, double *near,
                char *error) {
  if (!trust->features) {
    double highest = 0, sum = 0;
    for (size_t i = 0; i < trust->ways; ++i) {
      double one = fmax(probabilities[i], smallest);
      highest = fmax(highest, one);
      sum += one;
    }
    *near = log(highest / sum);
    return 0;
  }
  float *features;
  if (take_features(trust, image, 1, &features, error)) return -1;
  *near = nearest(trust, features, trust->means);
  free(features);
  return 0;
}
