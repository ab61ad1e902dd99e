/* Runs the signatures of a SavedModel with tensors by name. */
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "few_shot.h"
#include "signature.h"
#include "tensorflow/c/c_api.h"

struct fs_model {
  TF_Graph *graph;
  TF_Session *session;
  signature adapt, predict; /* take files and names of classes */
  size_t num_way;           /* the largest number of classes; 0 if there is no limit */
  /* Without inputs if the model does not have the signature. The first two take files. */
  signature pixels, features, adapt_features, predict_features;
};

/* A tensor that goes into a signature, or comes out of it. */
typedef struct {
  const char *name;
  TF_Tensor *tensor;
} named_tensor;

/* Returns the model of a classifier. */
const fs_model *fs_model_of(const fs_classifier *classifier);

/* Copies a sentence into `error`. */
void model_say(char *error, const char *text);

/* Runs a signature. The caller names the outputs and later deletes their tensors. Returns 0; or -1 with a
 * sentence in `error` and no output tensors. */
int model_run(const fs_model *model, const signature *run, const named_tensor *inputs,
              size_t num_inputs, named_tensor *outputs, size_t num_outputs, char *error);

/* Return new tensors, or NULL if there is no memory. */
TF_Tensor *model_images(const fs_image *images, size_t count);
TF_Tensor *model_texts(const char *const *texts, size_t count);
TF_Tensor *model_number(int32_t value);

void model_delete(named_tensor *tensors, size_t number);

#endif
