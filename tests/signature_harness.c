/* Gives a model's bytes to the reader of signatures: whole, every beginning, and with single bytes
 * changed. Under the sanitizers none of them may cause an error. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "signature.h"

/* Returns the MetaGraphDef of a SavedModel, which is field 2. Its length is a varint. */
static const uint8_t *meta_graph(const uint8_t *data, size_t size, size_t *length) {
  for (size_t at = 0; at + 1 < size;) {
    uint8_t key = data[at++];
    uint64_t value = 0;
    unsigned shift = 0;
    do {
      value |= (uint64_t)(data[at] & 0x7f) << shift;
      shift += 7;
    } while (data[at++] & 0x80);
    if (key == (2 << 3 | 2)) {
      *length = value;
      return data + at;
    }
    if ((key & 7) == 2) at += value;
  }
  return NULL;
}

/* Reads a copy of exactly this size, so that the sanitizer sees a read beyond it. */
static int try_bytes(const uint8_t *bytes, size_t size, signature *found) {
  uint8_t *copy = malloc(size ? size : 1);
  memcpy(copy, bytes, size);
  int result = signature_find(copy, size, "predict_encoded_named", found);
  free(copy);
  return result;
}

int main(int argc, char **argv) {
  static signature found;
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (!file) return 2;
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file), length = 0;
  rewind(file);
  uint8_t *data = malloc(size);
  if (fread(data, 1, size, file) != size) return 2;
  fclose(file);
  const uint8_t *graph = meta_graph(data, size, &length);
  if (!graph || try_bytes(graph, length, &found) || !signature_input(&found, "query_images") ||
      !signature_output(&found, "probabilities") || signature_input(&found, "probabilities")) {
    fprintf(stderr, "the signature is not found\n");
    return 1;
  }
  /* The signatures are at the end, so the steps are small there and large before. */
  size_t tail = length > 20000 ? length - 20000 : 0;
  for (size_t end = 0; end < length; end += end < tail ? 4099 : 13) try_bytes(graph, end, &found);
  uint8_t *changed = malloc(length);
  memcpy(changed, graph, length);
  srand(1);
  for (int i = 0; i < 3000; ++i) {
    size_t at = tail + (size_t)rand() % (length - tail);
    uint8_t before = changed[at];
    changed[at] = (uint8_t)rand();
    try_bytes(changed, length, &found);
    changed[at] = before;
  }
  free(changed);
  free(data);
  return 0;
}
