/* Reads the signatures of a SavedModel: the tensors of the graph that are their inputs and outputs. They are
 * in the MetaGraphDef, a protocol buffer that TensorFlow returns as bytes. */
#ifndef SIGNATURE_H
#define SIGNATURE_H

#include <stddef.h>

#define SIGNATURE_TENSORS 16
#define SIGNATURE_NAME 128

typedef struct {
  char name[SIGNATURE_NAME];      /* the name of the input or output */
  char operation[SIGNATURE_NAME]; /* the operation of the graph that makes the tensor */
  int index;                      /* the number of this output of the operation */
} signature_tensor;

typedef struct {
  signature_tensor inputs[SIGNATURE_TENSORS], outputs[SIGNATURE_TENSORS];
  size_t num_inputs, num_outputs;
} signature;

/* Finds a signature by its name. Returns 0; or -1 if there is no such signature, or if the bytes are no
 * MetaGraphDef. */
int signature_find(const void *meta_graph, size_t size, const char *name, signature *found);

const signature_tensor *signature_input(const signature *from, const char *name);
const signature_tensor *signature_output(const signature *from, const char *name);

#endif
