#include "few_shot.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signature.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

/* The signatures that take files and names of classes. */
#define ADAPT "adapt_encoded_named"
#define PREDICT "predict_encoded_named"

struct fs_model {
  TF_Graph *graph;
  TF_Session *session;
  signature adapt, predict;
};

/* All that `adapt` returned and `predict` takes, as plain tensors. */
struct fs_classifier {
  const fs_model *model;
  TF_Tensor *state[SIGNATURE_TENSORS]; /* in the order of the inputs of `predict`; NULL: images */
  char **names;
  size_t num_classes;
};

static void say(char *error, const char *text) { snprintf(error, FS_ERROR_SIZE, "%s", text); }

/* Copies a failed status, of what the model itself has to say the sentence alone; returns whether it
 * failed. */
static int failed(TF_Status *status, char *error) {
  static const char before[] = "assertion failed: [";
  const char *message = TF_Message(status), *found = strstr(message, before), *end;
  if (TF_GetCode(status) == TF_OK) return 0;
  say(error, message);
  if (!found) return 1;
  found += sizeof before - 1;
  for (end = strchr(found, ']'); end && end[1] && !strchr(" \n", end[1]);)
    end = strchr(end + 1, ']');
  if (end) snprintf(error, FS_ERROR_SIZE, "%.*s", (int)(end - found), found);
  return 1;
}

fs_model *fs_load(const char *directory, char *error) {
  const char *const tags[] = {"serve"};
  fs_model *model = calloc(1, sizeof *model);
  TF_Status *status = TF_NewStatus();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *meta_graph = TF_NewBuffer();
  int good = 0;
  if (!model) {
    say(error, "out of memory");
  } else {
    model->graph = TF_NewGraph();
    model->session = TF_LoadSessionFromSavedModel(options, NULL, directory, tags, 1, model->graph,
                                                  meta_graph, status);
    if (TF_GetCode(status) != TF_OK) {
      snprintf(error, FS_ERROR_SIZE, "it cannot be loaded; is the copy complete? (%s)",
               TF_Message(status));
    } else {
      good = signature_find(meta_graph->data, meta_graph->length, ADAPT, &model->adapt) == 0 &&
             signature_find(meta_graph->data, meta_graph->length, PREDICT, &model->predict) == 0;
      if (!good)
        say(error, "it has no signatures " ADAPT " and " PREDICT
                   ": expected a model of images that python -m tf_metalstm.export wrote");
    }
  }
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  if (good) return model;
  fs_free_model(model);
  return NULL;
}

void fs_free_model(fs_model *model) {
  if (!model) return;
  if (model->session) {
    TF_Status *status = TF_NewStatus();
    TF_DeleteSession(model->session, status);
    TF_DeleteStatus(status);
  }
  if (model->graph) TF_DeleteGraph(model->graph);
  free(model);
}

static void free_strings(void *data, size_t length, void *unused) {
  TF_TString *strings = data;
  (void)unused;
  for (size_t i = 0; i < length / sizeof *strings; ++i) TF_StringDealloc(&strings[i]);
  free(data);
}

/* Returns a vector of strings without contents. */
static TF_Tensor *new_strings(size_t count) {
  int64_t shape = (int64_t)count;
  size_t size = count * sizeof(TF_TString);
  TF_TString *strings = malloc(size ? size : 1);
  if (!strings) return NULL;
  for (size_t i = 0; i < count; ++i) TF_StringInit(&strings[i]);
  return TF_NewTensor(TF_STRING, &shape, 1, strings, size, free_strings, NULL);
}

static TF_Tensor *image_tensor(const fs_image *images, size_t count) {
  TF_Tensor *tensor = new_strings(count);
  if (!tensor) return NULL;
  TF_TString *strings = TF_TensorData(tensor);
  for (size_t i = 0; i < count; ++i) TF_StringCopy(&strings[i], images[i].data, images[i].size);
  return tensor;
}

static TF_Tensor *label_tensor(const char *const *labels, size_t count) {
  TF_Tensor *tensor = new_strings(count);
  if (!tensor) return NULL;
  TF_TString *strings = TF_TensorData(tensor);
  for (size_t i = 0; i < count; ++i) TF_StringCopy(&strings[i], labels[i], strlen(labels[i]));
  return tensor;
}

static TF_Tensor *scalar_tensor(int32_t value) {
  TF_Tensor *tensor = TF_AllocateTensor(TF_INT32, NULL, 0, sizeof value);
  if (tensor) memcpy(TF_TensorData(tensor), &value, sizeof value);
  return tensor;
}

/* Resolves a tensor of a signature in the graph. */
static int resolve(const fs_model *model, const signature_tensor *tensor, TF_Output *into,
                   char *error) {
  into->oper = tensor ? TF_GraphOperationByName(model->graph, tensor->operation) : NULL;
  into->index = tensor ? tensor->index : 0;
  if (into->oper) return 0;
  say(error, "the model's signatures are not those that this client was written for");
  return -1;
}

static void delete_tensors(TF_Tensor **tensors, size_t number) {
  for (size_t i = 0; i < number; ++i)
    if (tensors[i]) TF_DeleteTensor(tensors[i]);
}

fs_classifier *fs_adapt(const fs_model *model, const fs_image *images,
                        const char *const *labels, size_t count, int num_steps, char *error) {
  const signature *adapt = &model->adapt, *predict = &model->predict;
  int num_inputs = num_steps == FS_DEFAULT_STEPS ? 2 : 3;
  const char *const names[] = {"support_images", "support_labels", "num_steps"};
  TF_Tensor *fed[3] = {image_tensor(images, count), label_tensor(labels, count),
                       scalar_tensor(num_steps)};
  TF_Output inputs[3], outputs[SIGNATURE_TENSORS];
  TF_Tensor *fetched[SIGNATURE_TENSORS] = {NULL};
  size_t place[SIGNATURE_TENSORS]; /* of each fetched tensor among the inputs of `predict` */
  int num_outputs = 0;
  fs_classifier *made = calloc(1, sizeof *made);
  TF_Status *status = TF_NewStatus();
  int good = made && fed[0] && fed[1] && fed[2];
  if (!good) {
    say(error, "out of memory");
  } else if (num_inputs == 3 && !signature_input(adapt, "num_steps")) {
    good = 0;
    say(error, "a number of updates is for models that learn by them; this one does not");
  }
  for (int i = 0; good && i < num_inputs; ++i)
    good = resolve(model, signature_input(adapt, names[i]), &inputs[i], error) == 0;
  for (size_t i = 0; good && i < predict->num_inputs; ++i) {
    if (strcmp(predict->inputs[i].name, "query_images") == 0) continue;
    good = resolve(model, signature_output(adapt, predict->inputs[i].name),
                   &outputs[num_outputs], error) == 0;
    place[num_outputs++] = i;
  }
  if (good) {
    TF_SessionRun(model->session, NULL, inputs, fed, num_inputs, outputs, fetched, num_outputs,
                  NULL, 0, NULL, status);
    good = !failed(status, error);
  }
  if (good) {
    made->model = model;
    for (int i = 0; i < num_outputs; ++i) {
      made->state[place[i]] = fetched[i];
      if (strcmp(predict->inputs[place[i]].name, "class_names") != 0) continue;
      const TF_TString *strings = TF_TensorData(fetched[i]);
      size_t number = (size_t)TF_Dim(fetched[i], 0);
      made->names = calloc(number, sizeof *made->names);
      for (; made->names && made->num_classes < number; ++made->num_classes) {
        const TF_TString *string = &strings[made->num_classes];
        size_t length = TF_StringGetSize(string);
        char *name = calloc(length + 1, 1);
        if (!name) break;
        memcpy(name, TF_StringGetDataPointer(string), length);
        made->names[made->num_classes] = name;
      }
      good = made->num_classes == number;
    }
    if (!good || !made->num_classes) {
      good = 0;
      say(error, "out of memory");
    }
  } else {
    delete_tensors(fetched, SIGNATURE_TENSORS);
  }
  delete_tensors(fed, 3);
  TF_DeleteStatus(status);
  if (good) return made;
  fs_free_classifier(made);
  return NULL;
}

void fs_free_classifier(fs_classifier *classifier) {
  if (!classifier) return;
  delete_tensors(classifier->state, SIGNATURE_TENSORS);
  for (size_t i = 0; i < classifier->num_classes; ++i) free(classifier->names[i]);
  free(classifier->names);
  free(classifier);
}

size_t fs_num_classes(const fs_classifier *classifier) { return classifier->num_classes; }

const char *fs_class_name(const fs_classifier *classifier, size_t number) {
  return classifier->names[number];
}

int fs_predict(const fs_classifier *classifier, const fs_image *images, size_t count,
               float *probabilities, char *error) {
  const fs_model *model = classifier->model;
  const signature *predict = &model->predict;
  TF_Tensor *queries = image_tensor(images, count), *answer = NULL;
  TF_Tensor *fed[SIGNATURE_TENSORS];
  TF_Output inputs[SIGNATURE_TENSORS], output;
  TF_Status *status = TF_NewStatus();
  int good = queries != NULL;
  if (!good) say(error, "out of memory");
  for (size_t i = 0; good && i < predict->num_inputs; ++i) {
    fed[i] = classifier->state[i] ? classifier->state[i] : queries;
    good = resolve(model, &predict->inputs[i], &inputs[i], error) == 0;
  }
  good = good && resolve(model, signature_output(predict, "probabilities"), &output, error) == 0;
  if (good) {
    TF_SessionRun(model->session, NULL, inputs, fed, (int)predict->num_inputs, &output, &answer, 1,
                  NULL, 0, NULL, status);
    good = !failed(status, error);
  }
  if (good) {
    size_t size = count * classifier->num_classes * sizeof *probabilities;
    good = TF_TensorByteSize(answer) == size;
    if (good)
      memcpy(probabilities, TF_TensorData(answer), size);
    else
      say(error, "the model answered with another number of probabilities than asked for");
  }
  if (answer) TF_DeleteTensor(answer);
  if (queries) TF_DeleteTensor(queries);
  TF_DeleteStatus(status);
  return good ? 0 : -1;
}
