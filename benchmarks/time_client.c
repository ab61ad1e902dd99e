/* Times the C client: MODEL REPEATS SUPPORT_COUNT FILE... -> a line of JSON.
 * The name of a support file's folder is its class. This file is built in place of adapt.c. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "few_shot.h"

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static int by_size(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static void check(int good, const char *error) {
  if (!good) {
    fprintf(stderr, "%s\n", error);
    exit(1);
  }
}

static fs_image read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  check(file && !fseek(file, 0, SEEK_END), path);
  size_t size = (size_t)ftell(file);
  rewind(file);
  void *data = malloc(size);
  check(data && fread(data, 1, size, file) == size, path);
  fclose(file);
  return (fs_image){data, size};
}

static char *folder_of(const char *path) {
  char *copy = strdup(path), *slash = strrchr(copy, '/');
  check(slash != NULL, path);
  *slash = 0;
  return strrchr(copy, '/') + 1;
}

int main(int argc, char **argv) {
  char error[FS_ERROR_SIZE] = "usage: MODEL REPEATS SUPPORT_COUNT FILE...";
  check(argc > 5, error);
  size_t repeats = strtoul(argv[2], NULL, 10), support = strtoul(argv[3], NULL, 10);
  size_t count = (size_t)argc - 4, queries = count - support;
  fs_image *images = malloc(count * sizeof *images);
  const char **labels = malloc(count * sizeof *labels);
  double *adapts = malloc(repeats * sizeof *adapts), *predicts = malloc(repeats * sizeof *predicts);
  for (size_t i = 0; i < count; i++) {
    images[i] = read_file(argv[4 + i]);
    labels[i] = folder_of(argv[4 + i]);
  }
  double start = now();
  fs_model *model = fs_load(argv[1], error);
  check(model != NULL, error);
  double load = now() - start;
  start = now();
  fs_classifier *known = fs_adapt(model, images, labels, support, FS_DEFAULT_STEPS, error);
  check(known != NULL, error);
  double first = now() - start;
  float *answers = malloc(queries * fs_num_classes(known) * sizeof *answers);
  check(!fs_predict(known, images + support, queries, answers, error), error);
  for (size_t i = 0; i < repeats; i++) {
    start = now();
    fs_classifier *again = fs_adapt(model, images, labels, support, FS_DEFAULT_STEPS, error);
    adapts[i] = now() - start;
    check(again != NULL, error);
    fs_free_classifier(again);
    start = now();
    check(!fs_predict(known, images + support, queries, answers, error), error);
    predicts[i] = now() - start;
  }
  qsort(adapts, repeats, sizeof *adapts, by_size);
  qsort(predicts, repeats, sizeof *predicts, by_size);
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage); /* KiB on Linux */
  printf("{\"load_s\": %f, \"first_adapt_s\": %f, \"adapt_s\": %f, \"predict_s\": %f, ", load,
         first, adapts[repeats / 2], predicts[repeats / 2]);
  printf("\"memory_mb\": %f}\n", (double)usage.ru_maxrss * 1024 / 1e6);
  return 0;
}
