#include "signature.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of fields, from TensorFlow's meta_graph.proto. */
enum { META_GRAPH_SIGNATURES = 5, ENTRY_KEY = 1, ENTRY_VALUE = 2 };
enum { SIGNATURE_INPUTS = 1, SIGNATURE_OUTPUTS = 2, TENSOR_NAME = 1 };

typedef struct {
  const uint8_t *at, *end;
} reader;

typedef struct {
  unsigned number;
  reader content; /* the bytes of the field; empty for a number */
} field;

static int read_varint(reader *from, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && from->at < from->end; shift += 7) {
    uint8_t byte = *from->at++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return 1;
  }
  return 0;
}

/* Reads the next field. Returns 1, or 0 at the end, or -1 if the bytes make no sense. */
static int next_field(reader *from, field *found) {
  uint64_t key, length = 0;
  if (from->at == from->end) return 0;
  if (!read_varint(from, &key)) return -1;
  found->number = (unsigned)(key >> 3);
  switch (key & 7) {
    case 0: /* a number, which is skipped */
      if (!read_varint(from, &length)) return -1;
      length = 0;
      break;
    case 1:
      length = 8;
      break;
    case 2:
      if (!read_varint(from, &length)) return -1;
      break;
    case 5:
      length = 4;
      break;
    default:
      return -1;
  }
  if (length > (uint64_t)(from->end - from->at)) return -1;
  found->content.at = from->at;
  found->content.end = from->at += length;
  return 1;
}

static int equals(reader text, const char *expected) {
  size_t size = (size_t)(text.end - text.at);
  return size == strlen(expected) && memcmp(text.at, expected, size) == 0;
}

static int copy_text(reader text, char *into) {
  size_t size = (size_t)(text.end - text.at);
  if (size >= SIGNATURE_NAME) return -1;
  memcpy(into, text.at, size);
  into[size] = '\0';
  return 0;
}

/* Reads the key and the value of an entry of a map. */
static int read_entry(reader entry, reader *key, reader *value) {
  field part;
  int more;
  key->at = key->end = value->at = value->end = entry.end;
  while ((more = next_field(&entry, &part)) > 0) {
    if (part.number == ENTRY_KEY) *key = part.content;
    if (part.number == ENTRY_VALUE) *value = part.content;
  }
  return more;
}

/* Reads "operation:index" of a TensorInfo. */
static int read_tensor(reader entry, signature_tensor *tensor) {
  reader name, info;
  field part;
  char *colon;
  int more;
  memset(tensor, 0, sizeof *tensor);
  if (read_entry(entry, &name, &info) || copy_text(name, tensor->name)) return -1;
  while ((more = next_field(&info, &part)) > 0)
    if (part.number == TENSOR_NAME && copy_text(part.content, tensor->operation)) return -1;
  if (more) return -1;
  colon = strrchr(tensor->operation, ':');
  if (!colon) return -1;
  *colon = '\0';
  tensor->index = atoi(colon + 1);
  return 0;
}

static int read_signature(reader from, signature *found) {
  field part;
  int more;
  memset(found, 0, sizeof *found);
  while ((more = next_field(&from, &part)) > 0) {
    signature_tensor *tensors;
    size_t *number;
    if (part.number == SIGNATURE_INPUTS) {
      tensors = found->inputs, number = &found->num_inputs;
    } else if (part.number == SIGNATURE_OUTPUTS) {
      tensors = found->outputs, number = &found->num_outputs;
    } else {
      continue;
    }
    if (*number == SIGNATURE_TENSORS || read_tensor(part.content, &tensors[*number])) return -1;
    ++*number;
  }
  return more;
}

int signature_find(const void *meta_graph, size_t size, const char *name, signature *found) {
  reader from = {meta_graph, (const uint8_t *)meta_graph + size};
  field part;
  while (next_field(&from, &part) > 0) {
    reader key, value;
    if (part.number != META_GRAPH_SIGNATURES) continue;
    if (read_entry(part.content, &key, &value)) return -1;
    if (equals(key, name)) return read_signature(value, found);
  }
  return -1;
}

static const signature_tensor *find(const signature_tensor *tensors, size_t number,
                                    const char *name) {
  for (size_t i = 0; i < number; ++i)
    if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
  return NULL;
}

const signature_tensor *signature_input(const signature *from, const char *name) {
  return find(from->inputs, from->num_inputs, name);
}

const signature_tensor *signature_output(const signature *from, const char *name) {
  return find(from->outputs, from->num_outputs, name);
}
