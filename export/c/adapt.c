/* Adapts an exported model to folders of labelled images, and classifies other images with it.
 *
 *     ./adapt [--num_steps T] [--skip_corrupt] [--estimate] [--none_of_these[=SHARE]] MODEL SUPPORT IMAGE...
 *
 * MODEL    the folder that `python -m tf_metalstm.export` wrote
 * SUPPORT  a folder for each class, with a few images in or below it: JPEG, PNG, GIF, BMP or WebP
 * IMAGE    a file to classify, or a folder of such files
 *
 * --num_steps T    number of updates, 0 to 1000; by default as many as in training
 * --skip_corrupt   leaves out files that cannot be read, and names them
 * --estimate       prints on stderr how many answers will be right, and which support pictures look mislabelled
 * --none_of_these  answers "none of these" for pictures that show none of the classes. SHARE is the rate of
 *                  false alarms: the share of pictures of the classes that get this answer, 0.05 by default
 *
 * The program warns about pictures that make answers unreliable, as the Python clients do; remarks.h lists
 * them. It writes a table with tabs: file, predicted class, the probability of every class. TensorFlow's
 * library prints facts about the machine on stderr first.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "few_shot.h"
#include "folders.h"
#include "remarks.h"

enum { MAX_STEPS = 1000 };
static const double false_alarms = 0.05; /* the default rate of false alarms */
static const char none_of_these[] = "none of these";

static const char usage[] =
    "usage: adapt [--num_steps T] [--skip_corrupt] [--estimate] [--none_of_these[=SHARE]]\n"
    "             MODEL SUPPORT IMAGE...\n"
    "SUPPORT holds a folder of images for each class. IMAGE is a file or a folder of files. Images are\n"
    "JPEG, PNG, GIF, BMP or WebP files.\n";

static fs_image read_file(const char *path) {
  struct stat facts;
  fs_image image = {NULL, 0};
  FILE *file = fopen(path, "rb");
  if (!file || fstat(fileno(file), &facts)) fail("%s cannot be read (%s)", path, strerror(errno));
  if (!S_ISREG(facts.st_mode)) fail("%s is neither a file nor a folder", path);
  image.size = (size_t)facts.st_size;
  void *data = checked(malloc(image.size + 1));
  if (fread(data, 1, image.size, file) != image.size) fail("%s cannot be read to its end", path);
  fclose(file);
  image.data = data;
  return image;
}

/* The labelled images that fs_adapt takes, and their files; `size` is their number. */
typedef struct {
  fs_image *images;
  const char **labels;
  const char **paths;
  size_t size;
} support_set;

/* Reads the first image of each class, then the second of each, and so on, as in training. */
static support_set read_support(const class_list *classes) {
  size_t total = 0;
  for (size_t i = 0; i < classes->count; ++i) total += classes->classes[i].files.count;
  support_set support = {checked(calloc(total, sizeof *support.images)),
                         checked(calloc(total, sizeof *support.labels)),
                         checked(calloc(total, sizeof *support.paths)), 0};
  for (size_t shot = 0; support.size < total; ++shot)
    for (size_t i = 0; i < classes->count; ++i) {
      const image_class *one = &classes->classes[i];
      if (shot >= one->files.count) continue;
      support.images[support.size] = read_file(one->files.paths[shot]);
      support.labels[support.size] = one->name;
      support.paths[support.size++] = one->files.paths[shot];
    }
  return support;
}

static void free_support(support_set *support) {
  for (size_t i = 0; i < support->size; ++i) free((void *)support->images[i].data);
  free(support->images);
  free(support->labels);
  free(support->paths);
}

/* Returns the reason in an error about one image of a list, such as "support_images[3]: the file is empty",
 * and writes the place of the image. Returns NULL for other errors. */
static const char *of_one(const char *error, const char *list, size_t *place) {
  size_t length = strlen(list);
  char *end;
  if (strncmp(error, list, length) || error[length] != '[') return NULL;
  *place = strtoul(error + length + 1, &end, 10);
  return strncmp(end, "]: ", 3) ? NULL : end + 3;
}

/* Prints that a file cannot be read. Ends the program unless such files are left out. */
static void refuse(const char *path, const char *why, int skip_corrupt) {
  if (!skip_corrupt)
    fail("%s is not a readable image (%s). Leave such files out with --skip_corrupt", path, why);
  fprintf(stderr, "skipped: %s is not a readable image (%s)\n", path, why);
}

static void leave_out(support_set *support, size_t place) {
  size_t after = --support->size - place, of_class = 0;
  const char *label = support->labels[place];
  free((void *)support->images[place].data);
  memmove(support->images + place, support->images + place + 1, after * sizeof *support->images);
  memmove(support->labels + place, support->labels + place + 1, after * sizeof *support->labels);
  memmove(support->paths + place, support->paths + place + 1, after * sizeof *support->paths);
  for (size_t i = 0; i < support->size; ++i) of_class += strcmp(support->labels[i], label) == 0;
  if (!of_class) fail("None of the images of class '%s' can be read", label);
}

/* Adapts the model. A file that it cannot read is left out if skip_corrupt is set; else it is an error. */
static fs_classifier *adapted(const fs_model *model, support_set *support, int num_steps,
                              int skip_corrupt) {
  char error[FS_ERROR_SIZE];
  for (;;) {
    size_t place;
    fs_classifier *classifier = fs_adapt(model, support->images, support->labels, support->size,
                                         num_steps, error);
    if (classifier) return classifier;
    const char *why = of_one(error, "support_images", &place);
    if (!why || place >= support->size) fail("The model says: %s", error);
    refuse(support->paths[place], why, skip_corrupt);
    leave_out(support, place);
  }
}

/* Returns the properties of a picture that warnings need. The model could read the picture. */
static look look_of(const fs_model *model, const fs_image *image, const char *path,
                    const char *label) {
  char error[FS_ERROR_SIZE];
  fs_pixels pixels;
  if (fs_decode(model, image, &pixels, error)) fail("The model says: %s", error);
  look seen = look_at(path, label, pixels.levels, pixels.height, pixels.width, pixels.channels);
  free(pixels.levels);
  return seen;
}

/* Warns about a support set. Returns the properties of its pictures, or NULL if the model cannot decode. */
static look *looked_at(const fs_model *model, const support_set *support) {
  warn_of_sizes(support->labels, support->size);
  if (!fs_decodes(model)) {
    fputs("note: the pictures are not checked for blank, equal and inverted ones: the model comes from an "
          "early version and cannot decode files for this\n", stderr);
    return NULL;
  }
  look *looks = checked(calloc(support->size, sizeof *looks));
  for (size_t i = 0; i < support->size; ++i)
    looks[i] = look_of(model, &support->images[i], support->paths[i], support->labels[i]);
  warn_of_support(looks, support->size);
  return looks;
}

/* The options of the command line. */
typedef struct {
  int num_steps, skip_corrupt, estimate;
  double none_of_these; /* the rate of false alarms; 0 if the option is not set */
} settings;

/* Returns the answer for an image: its most probable class, or "none of these". */
static const char *label_of(const fs_classifier *classifier, fs_trust *trust, const fs_image *image,
                            const float *probabilities, double limit) {
  char error[FS_ERROR_SIZE];
  size_t best = 0;
  double near = 0;
  for (size_t i = 1; i < fs_num_classes(classifier); ++i)
    if (probabilities[i] > probabilities[best]) best = i;
  if (isfinite(limit)) {
    if (fs_nearness(trust, image, probabilities, &near, error)) fail("The model says: %s", error);
    if (near < limit) return none_of_these;
  }
  return fs_class_name(classifier, best);
}

/* Writes the row of a file. Also writes the properties of its picture, if there is room for them. Returns 0
 * if the file was left out. If trust is given, a picture whose nearness is below the limit is of no class. */
static int print_answer(const fs_model *model, const fs_classifier *classifier, fs_trust *trust,
                        double limit, const char *path, int skip_corrupt, look *seen) {
  char error[FS_ERROR_SIZE];
  size_t num_classes = fs_num_classes(classifier), place;
  fs_image image = read_file(path);
  float *probabilities = checked(calloc(num_classes, sizeof *probabilities));
  int failed = fs_predict(classifier, &image, 1, probabilities, error);
  if (failed) {
    const char *why = of_one(error, "query_images", &place);
    if (!why) fail("The model says: %s", error);
    refuse(path, why, skip_corrupt);
  } else {
    printf("%s\t%s", path, label_of(classifier, trust, &image, probabilities, limit));
    for (size_t i = 0; i < num_classes; ++i) printf("\t%.9g", probabilities[i]);
    printf("\n");
    if (seen) *seen = look_of(model, &image, path, NULL);
  }
  free(probabilities);
  free((void *)image.data);
  return !failed;
}

static void print_header(const fs_classifier *classifier) {
  printf("file\tpredicted");
  for (size_t i = 0; i < fs_num_classes(classifier); ++i)
    printf("\t%s", fs_class_name(classifier, i));
  printf("\n");
}

/* Starts the program again with oneDNN switched on, unless the user has set TF_ENABLE_ONEDNN_OPTS.
 * TensorFlow's library reads this variable before `main`. Without it, oneDNN is off on processors that have
 * no AVX-512. */
static void take_kernels_of_training(char **argv) {
  if (getenv("TF_ENABLE_ONEDNN_OPTS")) return;
  setenv("TF_ENABLE_ONEDNN_OPTS", "1", 1);
  execv("/proc/self/exe", argv);
}

static int steps_of(const char *text) {
  char *end;
  long steps = text ? strtol(text, &end, 10) : -1;
  if (!text || *end || end == text || steps < 0 || steps > MAX_STEPS)
    fail("--num_steps must be a whole number from 0 to %d, got %s", MAX_STEPS,
         text && *text ? text : "nothing");
  return (int)steps;
}

static double share_of(const char *text) {
  char *end;
  double share = strtod(text, &end);
  if (*end || end == text || !(share > 0 && share < 1))
    fail("--none_of_these must be between 0 and 1, got %s: give 0.05 for one in twenty",
         *text ? text : "nothing");
  return share;
}

/* Reads the options, which begin with two hyphens. Returns the place of the first other argument. */
static int read_settings(int argc, char **argv, settings *into) {
  int at = 1;
  *into = (settings){.num_steps = FS_DEFAULT_STEPS};
  for (; at < argc && strncmp(argv[at], "--", 2) == 0; ++at) {
    if (strcmp(argv[at], "--skip_corrupt") == 0)
      into->skip_corrupt = 1;
    else if (strcmp(argv[at], "--estimate") == 0)
      into->estimate = 1;
    else if (strcmp(argv[at], "--none_of_these") == 0)
      into->none_of_these = false_alarms;
    else if (strncmp(argv[at], "--none_of_these=", 16) == 0)
      into->none_of_these = share_of(argv[at] + 16);
    else if (strcmp(argv[at], "--num_steps") == 0)
      into->num_steps = steps_of(argv[++at]);
    else if (strncmp(argv[at], "--num_steps=", 12) == 0)
      into->num_steps = steps_of(argv[at] + 12);
    else
      fail("%s is none of --num_steps, --skip_corrupt, --estimate and --none_of_these", argv[at]);
  }
  return at;
}

static void check_model(const fs_model *model, const settings *set, const char *root,
                        size_t num_classes) {
  if (fs_num_way(model) && num_classes > fs_num_way(model))
    fail("%s has %zu class folders, but the model tells at most %zu classes apart: take away some, or "
         "take a model that compares features, which has no limit", root, num_classes,
         fs_num_way(model));
  if (set->num_steps != FS_DEFAULT_STEPS && !fs_makes_updates(model))
    fail("--num_steps is for models that learn by updates; this one does not");
}

/* Returns how far to trust a classifier, and prints the estimate if --estimate is set. Returns NULL if neither
 * --estimate nor --none_of_these is set. */
static fs_trust *trusted(const fs_classifier *classifier, const support_set *support,
                         const settings *set) {
  char error[FS_ERROR_SIZE];
  if (!set->estimate && set->none_of_these <= 0) return NULL;
  fs_trust *trust = fs_trust_of(classifier, support->images, support->labels, support->size,
                                set->num_steps, error);
  if (!trust) fail("The model says: %s", error);
  size_t ways = fs_num_classes(classifier);
  const char **names = checked(calloc(ways, sizeof *names));
  for (size_t i = 0; i < ways; ++i) names[i] = fs_class_name(classifier, i);
  if (set->estimate)
    say_expected(fs_expected(trust), support->paths, support->labels, support->size, names, ways);
  free(names);
  return trust;
}

/* Answers all queries, and warns about them. */
static void answer(const fs_model *model, const fs_classifier *classifier, const support_set *support,
                   const path_list *queries, const settings *set) {
  look *known = looked_at(model, support), *asked = NULL;
  if (known) asked = checked(calloc(queries->count, sizeof *asked));
  fs_trust *trust = trusted(classifier, support, set);
  double limit = set->none_of_these > 0 ? nearness_limit(fs_expected(trust), set->none_of_these)
                                        : -INFINITY;
  print_header(classifier);
  size_t answered = 0;
  for (size_t i = 0; i < queries->count; ++i)
    answered += (size_t)print_answer(model, classifier, trust, limit, queries->paths[i],
                                     set->skip_corrupt, asked ? &asked[answered] : NULL);
  if (!answered) fail("None of the images to classify can be read");
  if (known) warn_of_queries(known, support->size, asked, answered);
  fs_free_trust(trust);
  free(known);
  free(asked);
}

int main(int argc, char **argv) {
  char error[FS_ERROR_SIZE];
  settings set;
  take_kernels_of_training(argv);
  int first = read_settings(argc, argv, &set);
  if (argc - first < 3) {
    fputs(usage, stderr);
    return 2;
  }
  char *folder = user_path(argv[first]), *root = user_path(argv[first + 1]);
  class_list classes = read_classes(root);
  path_list queries = read_queries(argv + first + 2, (size_t)(argc - first - 2), &classes,
                                   set.none_of_these > 0 ? none_of_these : NULL);
  support_set support = read_support(&classes);
  fs_model *model = fs_load(folder, error);
  if (!model) fail("The model in %s: %s", folder, error);
  check_model(model, &set, root, classes.count);
  fs_classifier *classifier = adapted(model, &support, set.num_steps, set.skip_corrupt);
  answer(model, classifier, &support, &queries, &set);
  fs_free_classifier(classifier);
  fs_free_model(model);
  free_support(&support);
  free_paths(&queries);
  free_classes(&classes);
  free(folder);
  free(root);
  return EXIT_SUCCESS;
}
