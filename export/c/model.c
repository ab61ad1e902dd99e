#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/tf_tstring.h"

/* The signatures that take files and names of classes. */
#define ADAPT "adapt_encoded_named"
#define PREDICT "predict_encoded_named"

void model_say(char *error, const char *text) { snprintf(error, FS_ERROR_SIZE, "%s", text); }

/* Returns whether a status is an error, and copies its message. If the model itself refused its input, only
 * the model's sentence is copied. */
static int failed(TF_Status *status, char *error) {
  static const char before[] = "assertion failed: [";
  const char *message = TF_Message(status), *found = strstr(message, before), *end;
  if (TF_GetCode(status) == TF_OK) return 0;
  model_say(error, message);
  if (!found) return 1;
  found += sizeof before - 1;
  for (end = strchr(found, ']'); end && end[1] && !strchr(" \n", end[1]);)
    end = strchr(end + 1, ']');
  if (end) snprintf(error, FS_ERROR_SIZE, "%.*s", (int)(end - found), found);
  return 1;
}

/* Reads the largest number of classes from the shape of the model's class mask. */
static void find_num_way(fs_model *model, const TF_Buffer *meta_graph) {
  signature pixels_in;
  TF_Output mask;
  int64_t ways = 0;
  TF_Status *status = TF_NewStatus();
  if (signature_find(meta_graph->data, meta_graph->length, "predict", &pixels_in) == 0) {
    const signature_tensor *found = signature_input(&pixels_in, "class_mask");
    mask.oper = found ? TF_GraphOperationByName(model->graph, found->operation) : NULL;
    mask.index = found ? found->index : 0;
    if (mask.oper) TF_GraphGetTensorShape(model->graph, mask, &ways, 1, status);
    if (TF_GetCode(status) != TF_OK) ways = 0;
  }
  model->num_way = ways > 0 ? (size_t)ways : 0;
  TF_DeleteStatus(status);
}

static int find_signatures(fs_model *model, const TF_Buffer *meta_graph, char *error) {
  const void *data = meta_graph->data;
  size_t size = meta_graph->length;
  if (signature_find(data, size, ADAPT, &model->adapt) ||
      signature_find(data, size, PREDICT, &model->predict)) {
    model_say(error, "it has no signatures " ADAPT " and " PREDICT
                     ": expected a model of images that python -m tf_metalstm.export wrote");
    return -1;
  }
  find_num_way(model, meta_graph);
  const struct {
    const char *name;
    signature *into;
  } others[] = {{"pixels_encoded", &model->pixels},
                {"features_encoded", &model->features},
                {"adapt_features", &model->adapt_features},
                {"predict_features", &model->predict_features}};
  for (size_t i = 0; i < sizeof others / sizeof *others; ++i)
    if (signature_find(data, size, others[i].name, others[i].into)) others[i].into->num_inputs = 0;
  return 0;
}

fs_model *fs_load(const char *directory, char *error) {
  const char *const tags[] = {"serve"};
  fs_model *model = calloc(1, sizeof *model);
  TF_Status *status = TF_NewStatus();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *meta_graph = TF_NewBuffer();
  int good = 0;
  if (!model) {
    model_say(error, "out of memory");
  } else {
    model->graph = TF_NewGraph();
    model->session = TF_LoadSessionFromSavedModel(options, NULL, directory, tags, 1, model->graph,
                                                  meta_graph, status);
    if (TF_GetCode(status) != TF_OK)
      snprintf(error, FS_ERROR_SIZE, "it cannot be loaded; is the copy complete? (%s)",
               TF_Message(status));
    else
      good = find_signatures(model, meta_graph, error) == 0;
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

/* Returns a vector of empty strings. */
static TF_Tensor *new_strings(size_t count) {
  int64_t shape = (int64_t)count;
  size_t size = count * sizeof(TF_TString);
  TF_TString *strings = malloc(size ? size : 1);
  if (!strings) return NULL;
  for (size_t i = 0; i < count; ++i) TF_StringInit(&strings[i]);
  return TF_NewTensor(TF_STRING, &shape, 1, strings, size, free_strings, NULL);
}

TF_Tensor *model_images(const fs_image *images, size_t count) {
  TF_Tensor *tensor = new_strings(count);
  if (!tensor) return NULL;
  TF_TString *strings = TF_TensorData(tensor);
  for (size_t i = 0; i < count; ++i) TF_StringCopy(&strings[i], images[i].data, images[i].size);
  return tensor;
}

TF_Tensor *model_texts(const char *const *texts, size_t count) {
  TF_Tensor *tensor = new_strings(count);
  if (!tensor) return NULL;
  TF_TString *strings = TF_TensorData(tensor);
  for (size_t i = 0; i < count; ++i) TF_StringCopy(&strings[i], texts[i], strlen(texts[i]));
  return tensor;
}

TF_Tensor *model_number(int32_t value) {
  TF_Tensor *tensor = TF_AllocateTensor(TF_INT32, NULL, 0, sizeof value);
  if (tensor) memcpy(TF_TensorData(tensor), &value, sizeof value);
  return tensor;
}

void model_delete(named_tensor *tensors, size_t number) {
  for (size_t i = 0; i < number; ++i) {
    if (tensors[i].tensor) TF_DeleteTensor(tensors[i].tensor);
    tensors[i].tensor = NULL;
  }
}

/* Finds a tensor of a signature in the graph. */
static int resolve(const fs_model *model, const signature_tensor *tensor, TF_Output *into,
                   char *error) {
  into->oper = tensor ? TF_GraphOperationByName(model->graph, tensor->operation) : NULL;
  into->index = tensor ? tensor->index : 0;
  if (into->oper) return 0;
  model_say(error, "the model's signatures are not those that this client was written for");
  return -1;
}

int model_run(const fs_model *model, const signature *run, const named_tensor *inputs,
              size_t num_inputs, named_tensor *outputs, size_t num_outputs, char *error) {
  TF_Output to[SIGNATURE_TENSORS], from[SIGNATURE_TENSORS];
  TF_Tensor *fed[SIGNATURE_TENSORS], *fetched[SIGNATURE_TENSORS] = {NULL};
  for (size_t i = 0; i < num_outputs; ++i) outputs[i].tensor = NULL;
  for (size_t i = 0; i < num_inputs; ++i) {
    fed[i] = inputs[i].tensor;
    if (!fed[i]) {
      model_say(error, "out of memory");
      return -1;
    }
    if (resolve(model, signature_input(run, inputs[i].name), &to[i], error)) return -1;
  }
  for (size_t i = 0; i < num_outputs; ++i)
    if (resolve(model, signature_output(run, outputs[i].name), &from[i], error)) return -1;
  TF_Status *status = TF_NewStatus();
  TF_SessionRun(model->session, NULL, to, fed, (int)num_inputs, from, fetched, (int)num_outputs,
                NULL, 0, NULL, status);
  int bad = failed(status, error);
  TF_DeleteStatus(status);
  for (size_t i = 0; i < num_outputs; ++i) outputs[i].tensor = fetched[i];
  if (bad) model_delete(outputs, num_outputs);
  return bad ? -1 : 0;
}
