/* Uses an exported few-shot model from C: loads it, adapts it to a few labelled image files, and classifies
 * others. Needs TensorFlow's C library, and no Python.
 *
 * Images are the bytes of files: JPEG, PNG, GIF, BMP or WebP. The model decodes them. If it cannot read one,
 * the error names its place, for example "support_images[3]: the file is empty". Start the process with
 * TF_ENABLE_ONEDNN_OPTS=1, so that it uses the same kernels as the training. Without this, a processor that
 * has no AVX-512 takes twice the time, and its results are rounded differently.
 *
 * A function that fails returns NULL or -1 and writes a sentence into `error`, which has room for
 * FS_ERROR_SIZE characters. Several threads may use a model at once. A classifier holds a pointer to its
 * model, so free the model last.
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

/* Whether the model learns by updates. If it does not, a number of updates is an error. */
int fs_makes_updates(const fs_model *model);

/* The largest number of classes that the model can have; 0 if there is no limit. */
size_t fs_num_way(const fs_model *model);

/* Adapts to `count` images and the names of their classes. They may have any order, and the classes any number
 * of images. */
fs_classifier *fs_adapt(const fs_model *model, const fs_image *images,
                        const char *const *labels, size_t count, int num_steps, char *error);
void fs_free_classifier(fs_classifier *classifier);

/* The classes, in the order of their first images. */
size_t fs_num_classes(const fs_classifier *classifier);
const char *fs_class_name(const fs_classifier *classifier, size_t number);

/* Writes the probability of every class for every image, row by row: count * fs_num_classes
 * numbers. Returns 0, or -1 for an error. */
int fs_predict(const fs_classifier *classifier, const fs_image *images, size_t count,
               float *probabilities, char *error);

/* How far to trust a classifier: its estimated accuracy, measured on support pictures that are left out, and
 * the nearness of other pictures to its classes. Keep the images, the labels and the classifier until
 * fs_free_trust. For this a model that learns by updates adapts up to five more times. */
typedef struct fs_trust fs_trust;
fs_trust *fs_trust_of(const fs_classifier *classifier, const fs_image *images,
                      const char *const *labels, size_t count, int num_steps, char *error);
void fs_free_trust(fs_trust *trust);
const expected *fs_expected(const fs_trust *trust);

/* Writes the nearness of an image to the classes. Compare it with `nearness_limit`. probabilities: those of
 * the image, by fs_predict. Returns 0, or -1 for an error. */
int fs_nearness(fs_trust *trust, const fs_image *image, const float *probabilities, double *near,
                char *error);

/* A decoded picture in the size of the model: height * width * channels levels 0 ... 255, row by row. */
typedef struct {
  float *levels; /* the caller frees them */
  size_t height, width, channels;
} fs_pixels;

/* Whether the model can decode files for fs_decode. Models of early versions cannot. */
int fs_decodes(const fs_model *model);

/* Decodes an image file, if fs_decodes(model). Returns 0, or -1 for an error. */
int fs_decode(const fs_model *model, const fs_image *image, fs_pixels *pixels, char *error);

#endif
