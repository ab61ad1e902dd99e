/* What a SavedModel says of its signatures: which tensors of the graph are which inputs and
 * outputs. Read from the MetaGraphDef, a protocol buffer that TensorFlow returns as bytes. */
#ifndef SIGNATURE_H
#define SIGNATURE_H

#include <stddef.h>

#define SIGNATURE_TENSORS 16
#define SIGNATURE_NAME 128

typedef struct {
  char name[SIGNATURE_NAME];      /* as the documentation of the model calls it */
  char operation[SIGNATURE_NAME]; /* of the graph */
  int index;                      /* of the operation's outputs */
} signature_tensor;

typedef struct {
  signature_tensor inputs[SIGNATURE_TENSORS], outputs[SIGNATURE_TENSORS];
  size_t num_inputs, num_outputs;
} signature;

/* Finds a signature by its name. Returns 0; or -1 where there is none such, or the bytes are no
 * MetaGraphDef. */
int signature_find(const void *meta_graph, size_t size, const char *name, signature *found);

const signature_tensor *signature_input(const signature *from, const char *name);
const signature_tensor *signature_output(const signature *from, const char *name);

#endif
