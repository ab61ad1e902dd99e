#include "few_shot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tensorflow/c/tf_tstring.h"

/* The tensors that `adapt` returned and `predict` takes. The first is a place for the images. */
struct fs_classifier {
  const fs_model *model;
  named_tensor state[SIGNATURE_TENSORS];
  size_t num_state;
  char **names;
  size_t num_classes;
};

/* Copies the names of the classes from a tensor. */
static int copy_names(fs_classifier *into, const TF_Tensor *names) {
  const TF_TString *strings = TF_TensorData(names);
  size_t number = (size_t)TF_Dim(names, 0);
  into->names = calloc(number, sizeof *into->names);
  for (; into->names && into->num_classes < number; ++into->num_classes) {
    const TF_TString *string = &strings[into->num_classes];
    size_t length = TF_StringGetSize(string);
    char *name = calloc(length + 1, 1);
    if (!name) break;
    memcpy(name, TF_StringGetDataPointer(string), length);
    into->names[into->num_classes] = name;
  }
  return into->names && into->num_classes == number ? 0 : -1;
}

int fs_makes_updates(const fs_model *model) {
  return signature_input(&model->adapt, "num_steps") != NULL;
}

size_t fs_num_way(const fs_model *model) { return model->num_way; }

fs_classifier *fs_adapt(const fs_model *model, const fs_image *images,
                        const char *const *labels, size_t count, int num_steps, char *error) {
  size_t num_inputs = num_steps == FS_DEFAULT_STEPS ? 2 : 3;
  fs_classifier *made = calloc(1, sizeof *made);
  if (!made) {
    model_say(error, "out of memory");
    return NULL;
  }
  if (num_inputs == 3 && !fs_makes_updates(model)) {
    model_say(error, "num_steps is for models that learn by updates; this one does not");
    free(made);
    return NULL;
  }
  made->model = model;
  made->state[made->num_state++].name = "query_images";
  for (size_t i = 0; i < model->predict.num_inputs; ++i)
    if (strcmp(model->predict.inputs[i].name, "query_images") != 0)
      made->state[made->num_state++].name = model->predict.inputs[i].name;
  named_tensor inputs[] = {{"support_images", model_images(images, count)},
                           {"support_labels", model_texts(labels, count)},
                           {"num_steps", model_number(num_steps)}};
  int bad = model_run(model, &model->adapt, inputs, num_inputs, made->state + 1,
                      made->num_state - 1, error);
  model_delete(inputs, 3);
  for (size_t i = 1; !bad && i < made->num_state; ++i)
    if (strcmp(made->state[i].name, "class_names") == 0) bad = copy_names(made, made->state[i].tensor);
  if (!bad && made->num_classes) return made;
  if (made->state[1].tensor) model_say(error, "out of memory");
  fs_free_classifier(made);
  return NULL;
}

void fs_free_classifier(fs_classifier *classifier) {
  if (!classifier) return;
  model_delete(classifier->state, classifier->num_state);
  for (size_t i = 0; i < classifier->num_classes; ++i) free(classifier->names[i]);
  free(classifier->names);
  free(classifier);
}

const fs_model *fs_model_of(const fs_classifier *classifier) { return classifier->model; }

size_t fs_num_classes(const fs_classifier *classifier) { return classifier->num_classes; }

const char *fs_class_name(const fs_classifier *classifier, size_t number) {
  return classifier->names[number];
}

int fs_predict(const fs_classifier *classifier, const fs_image *images, size_t count,
               float *probabilities, char *error) {
  named_tensor inputs[SIGNATURE_TENSORS], answer = {"probabilities", NULL};
  size_t size = count * classifier->num_classes * sizeof *probabilities;
  memcpy(inputs, classifier->state, sizeof inputs);
  inputs[0].tensor = model_images(images, count);
  int bad = model_run(classifier->model, &classifier->model->predict, inputs,
                      classifier->num_state, &answer, 1, error);
  model_delete(inputs, 1);
  if (!bad && TF_TensorByteSize(answer.tensor) != size) {
    model_say(error, "the model answered with another number of probabilities than asked for");
    bad = -1;
  }
  if (!bad) memcpy(probabilities, TF_TensorData(answer.tensor), size);
  model_delete(&answer, 1);
  return bad;
}

int fs_decodes(const fs_model *model) { return model->pixels.num_inputs > 0; }

int fs_decode(const fs_model *model, const fs_image *image, fs_pixels *pixels, char *error) {
  named_tensor files = {"images", model_images(image, 1)}, answer = {"pixels", NULL};
  int bad = model_run(model, &model->pixels, &files, 1, &answer, 1, error);
  model_delete(&files, 1);
  if (bad) return -1;
  pixels->height = (size_t)TF_Dim(answer.tensor, 1);
  pixels->width = (size_t)TF_Dim(answer.tensor, 2);
  pixels->channels = (size_t)TF_Dim(answer.tensor, 3);
  pixels->levels = malloc(TF_TensorByteSize(answer.tensor));
  if (pixels->levels)
    memcpy(pixels->levels, TF_TensorData(answer.tensor), TF_TensorByteSize(answer.tensor));
  else
    model_say(error, "out of memory");
  model_delete(&answer, 1);
  return pixels->levels ? 0 : -1;
}
