/* An exported few-shot model, used from C: load it, adapt it to a few labelled image files,
 * ask it about others. Needs TensorFlow's C library, no Python.
 *
 * Images are files as they are on a disk: JPEG, PNG, GIF, BMP or WebP. The model decodes them; one that
 * it cannot read it names by its place, as "support_images[3]: the file is empty". Start the
 * process with TF_ENABLE_ONEDNN_OPTS=1 to have the kernels that models are trained on: without them a
 * processor that has no AVX-512 takes twice the time, and rounds otherwise.
 *
 * Whatever fails returns NULL or -1 and writes a sentence into `error`, which has room for
 * FS_ERROR_SIZE characters. A model may be used by several threads at once. A classifier holds
 * a pointer to its model: free the model last.
 */
#ifndef FEW_SHOT_H
#define FEW_SHOT_H

#include <stddef.h>

#include "estimate.h"

#define FS_ERROR_SIZE 1024
#define FS_DEFAULT_STEPS (-1) /* as many updates as the model was trained with */

typedef struct fs_model fs_model;
typedef struct fs_classifier fs_classifier;

/* An image file in memory. */
typedef struct {
  const void *data;
  size_t size;
} fs_image;

/* Loads the folder that `python -m tf_metalstm.export` wrote. */
fs_model *fs_load(const char *directory, char *error);
void fs_free_model(fs_model *model);

/* Whether the model learns by updates; for another one a number of them is an error. */
int fs_makes_updates(const fs_model *model);

/* The most classes that the model tells apart; 0 for any number. */
size_t fs_num_way(const fs_model *model);

/* Adapts to `count` images and the names of their classes, in any order, any number of each. */
fs_classifier *fs_adapt(const fs_model *model, const fs_image *images,
                        const char *const *labels, size_t count, int num_steps, char *error);
void fs_free_classifier(fs_classifier *classifier);

/* The classes, in the order in which they first came. */
size_t fs_num_classes(const fs_classifier *classifier);
const char *fs_class_name(const fs_classifier *classifier, size_t number);

/* Writes the probability of every class for every image, row by row: count * fs_num_classes
 * numbers. Returns 0, or -1. */
int fs_predict(const fs_classifier *classifier, const fs_image *images, size_t count,
               float *probabilities, char *error);

/* How far to trust a classifier: what is to be expected of it, found by leaving support pictures out, and
 * how near others are to its classes. Images, labels and classifier have to stay as long as it does. A model
 * that learns by updates adapts up to five times more. */
typedef struct fs_trust fs_trust;
fs_trust *fs_trust_of(const fs_classifier *classifier, const fs_image *images,
                      const char *const *labels, size_t count, int num_steps, char *error);
void fs_free_trust(fs_trust *trust);
const expected *fs_expected(const fs_trust *trust);

/* Writes how near an image is to the classes, which is compared with `nearness_limit`. probabilities: those
 * of the image. Returns 0, or -1. */
int fs_nearness(fs_trust *trust, const fs_image *image, const float *probabilities, double *near,
                char *error);

/* A picture as the model sees it: height * width * channels levels 0 ... 255, row by row. */
typedef struct {
  float *levels; /* to be freed */
  size_t height, width, channels;
} fs_pixels;

/* Whether the model decodes files for others; those that were exported early do not. */
int fs_decodes(const fs_model *model);

/* Decodes an image file, of a model that does so. Returns 0, or -1. */
int fs_decode(const fs_model *model, const fs_image *image, fs_pixels *pixels, char *error);

#endif
