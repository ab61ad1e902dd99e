/* Adapts an exported model to folders of labelled images and classifies others with it.
 *
 *     ./adapt [--num_steps T] MODEL SUPPORT IMAGE...
 *
 * MODEL    the folder that `python -m tf_metalstm.export` wrote
 * SUPPORT  one folder a class, with a few images in each: JPEG, PNG, GIF, BMP or WebP
 * IMAGE    a file to classify
 *
 * Hidden files and those of the system are left out. Equal files in two classes or twice in one, support
 * files among the images, and classes of very different sizes are warned of. (That a picture is blank or
 * inverted is not seen here, as the Python clients see it: the files are decoded inside the model.)
 *
 * Writes a table with tabs between: file, predicted class, the probability of every class. What
 * TensorFlow's library finds on the machine it tells on stderr before anything else runs.
 */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "few_shot.h"

enum {
  WARNED = 5, /* pairs of files that a warning names */
  UNEQUAL = 5 /* times as many pictures as in another class */
};

static const char usage[] =
    "usage: adapt [--num_steps T] MODEL SUPPORT IMAGE...\n"
    "SUPPORT holds one folder of images a class; images are JPEG, PNG, GIF, BMP or WebP files.\n";

static void fail(const char *what, const char *why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  exit(EXIT_FAILURE);
}

static void *checked(void *memory) {
  if (!memory) fail("memory", "there is none left");
  return memory;
}

/* A growing list of paths. */
typedef struct {
  char **paths;
  size_t count;
} path_list;

static void add_path(path_list *list, const char *folder, const char *name) {
  size_t size = strlen(folder) + strlen(name) + 2;
  list->paths = checked(realloc(list->paths, (list->count + 1) * sizeof *list->paths));
  list->paths[list->count] = checked(malloc(size));
  snprintf(list->paths[list->count++], size, "%s/%s", folder, name);
}

static int by_name(const void *one, const void *other) {
  return strcmp(*(char *const *)one, *(char *const *)other);
}

/* Whether a name is that of a hidden file or folder, or of one of the system. */
static int is_clutter(const char *name) {
  static const char *const names[] = {"#recycle",    "$recycle.bin", "@eadir",
                                      "__macosx",    "desktop.ini",  "ehthumbs.db",
                                      "icon\r",      "lost+found",   "system volume information",
                                      "thumbs.db"};
  if (name[0] == '.') return 1;
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (strcasecmp(name, names[i]) == 0) return 1;
  return 0;
}

/* Lists what is in a folder, sorted, without hidden files and those of the system. */
static path_list list_folder(const char *folder) {
  path_list list = {NULL, 0};
  struct dirent *entry;
  DIR *opened = opendir(folder);
  if (!opened) fail(folder, strerror(errno));
  while ((entry = readdir(opened))) {
    if (!is_clutter(entry->d_name))
      add_path(&list, folder, entry->d_name);
    else if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      fprintf(stderr, "left out: %s/%s (hidden, or of the system)\n", folder, entry->d_name);
  }
  closedir(opened);
  if (list.count) qsort(list.paths, list.count, sizeof *list.paths, by_name);
  return list;
}

static void free_paths(path_list *list) {
  for (size_t i = 0; i < list->count; ++i) free(list->paths[i]);
  free(list->paths);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static fs_image read_file(const char *path) {
  struct stat facts;
  fs_image image = {NULL, 0};
  FILE *file = fopen(path, "rb");
  if (!file || fstat(fileno(file), &facts)) fail(path, strerror(errno));
  if (!S_ISREG(facts.st_mode)) fail(path, "expected an image file");
  image.size = (size_t)facts.st_size;
  void *data = checked(malloc(image.size + 1));
  if (fread(data, 1, image.size, file) != image.size) fail(path, "cannot be read to its end");
  fclose(file);
  image.data = data;
  return image;
}

/* Labelled images, as fs_adapt takes them, and their files. */
typedef struct {
  fs_image *images;
  const char **labels;
  path_list files;
} support_set;

/* The classes of a support folder. */
static path_list list_classes(const char *folder) {
  path_list classes = list_folder(folder);
  int parts = 0;
  if (!classes.count) fail(folder, "expected one folder of images a class");
  for (size_t i = 0; i < classes.count; ++i)
    parts += !strcmp(base_name(classes.paths[i]), "support") ||
             !strcmp(base_name(classes.paths[i]), "query");
  if (parts == 2) fail(folder, "it holds the folders support and query: give those, one by one");
  return classes;
}

/* Reads them shot by shot, one image of each class and then the next of each, as in training. */
static support_set read_support(const path_list *classes) {
  support_set support = {NULL, NULL, {NULL, 0}};
  path_list *files = checked(calloc(classes->count, sizeof *files));
  size_t total = 0;
  for (size_t i = 0; i < classes->count; ++i) {
    files[i] = list_folder(classes->paths[i]);
    if (!files[i].count) fail(classes->paths[i], "the class folder holds no image");
    total += files[i].count;
  }
  support.images = checked(calloc(total, sizeof *support.images));
  support.labels = checked(calloc(total, sizeof *support.labels));
  for (size_t shot = 0; support.files.count < total; ++shot)
    for (size_t i = 0; i < classes->count; ++i) {
      if (shot >= files[i].count) continue;
      support.images[support.files.count] = read_file(files[i].paths[shot]);
      support.labels[support.files.count] = base_name(classes->paths[i]);
      add_path(&support.files, classes->paths[i], base_name(files[i].paths[shot]));
    }
  for (size_t i = 0; i < classes->count; ++i) free_paths(&files[i]);
  free(files);
  return support;
}

/* Ends with an error; "support_images[3]: ..." is said of the file itself. */
static void fail_to_adapt(const support_set *support, const char *folder, const char *error) {
  static const char list[] = "support_images[";
  char *end;
  if (strncmp(error, list, sizeof list - 1) == 0) {
    unsigned long place = strtoul(error + sizeof list - 1, &end, 10);
    if (place < support->files.count && strncmp(end, "]: ", 3) == 0)
      fail(support->files.paths[place], end + 3);
  }
  fail(folder, error);
}

/* What is to be said of the one image that was sent. */
static const char *of_one(const char *error) {
  static const char list[] = "query_images[0]: ";
  return strncmp(error, list, sizeof list - 1) ? error : error + sizeof list - 1;
}

/* A warning that names pairs of files. */
typedef struct {
  const char *what;
  size_t count;
} warning;

static void warn_of(warning *found, const char *one, const char *other) {
  if (!found->count) fprintf(stderr, "warning: %s:", found->what);
  if (found->count < WARNED)
    fprintf(stderr, "%s %s is %s", found->count ? ";" : "", one, other);
  ++found->count;
}

static void end_warning(const warning *found) {
  if (found->count > WARNED) fprintf(stderr, "; and %zu more", found->count - WARNED);
  if (found->count) fputs(".\n", stderr);
}

static int are_equal(const fs_image *one, const fs_image *other) {
  return one->size == other->size && memcmp(one->data, other->data, one->size) == 0;
}

/* Warns of files that are there again, in their class or in another one. */
static void warn_of_equal_files(const support_set *support, int in_their_class) {
  warning found = {in_their_class ? "the same picture is in a class more than once"
                                  : "the same picture is in two classes",
                   0};
  for (size_t i = 0; i < support->files.count; ++i)
    for (size_t j = 0; j < i; ++j)
      if ((strcmp(support->labels[i], support->labels[j]) == 0) == in_their_class &&
          are_equal(&support->images[i], &support->images[j])) {
        warn_of(&found, support->files.paths[i], support->files.paths[j]);
        break;
      }
  end_warning(&found);
}

/* Warns of a class of few pictures beside one of many, or of one alone. */
static void warn_of_sizes(const support_set *support, const path_list *classes) {
  size_t few = 0, many = 0;
  size_t *sizes = checked(calloc(classes->count, sizeof *sizes));
  for (size_t i = 0; i < classes->count; ++i) {
    for (size_t j = 0; j < support->files.count; ++j)
      sizes[i] += strcmp(support->labels[j], base_name(classes->paths[i])) == 0;
    if (sizes[i] < sizes[few]) few = i;
    if (sizes[i] > sizes[many]) many = i;
  }
  if (classes->count == 1)
    fprintf(stderr, "warning: %s is the only class: whatever is asked about, that is the answer.\n",
            base_name(classes->paths[0]));
  else if (sizes[many] >= UNEQUAL * sizes[few])
    fprintf(stderr,
            "warning: the classes differ in size: %s has %zu of the support pictures, %s has %zu.\n",
            base_name(classes->paths[few]), sizes[few], base_name(classes->paths[many]),
            sizes[many]);
  free(sizes);
}

/* Warns of images to classify that are support files. */
static void warn_of_known(const support_set *support, char **paths, size_t count) {
  warning found = {"images to classify are among the support pictures", 0};
  for (size_t i = 0; i < count; ++i) {
    fs_image image = read_file(paths[i]);
    for (size_t j = 0; j < support->files.count; ++j)
      if (are_equal(&image, &support->images[j])) {
        warn_of(&found, paths[i], support->files.paths[j]);
        break;
      }
    free((void *)image.data);
  }
  end_warning(&found);
}

static void print_answer(const fs_classifier *classifier, const char *path) {
  char error[FS_ERROR_SIZE];
  size_t num_classes = fs_num_classes(classifier), best = 0;
  fs_image image = read_file(path);
  float *probabilities = checked(calloc(num_classes, sizeof *probabilities));
  if (fs_predict(classifier, &image, 1, probabilities, error)) fail(path, of_one(error));
  for (size_t i = 1; i < num_classes; ++i)
    if (probabilities[i] > probabilities[best]) best = i;
  printf("%s\t%s", path, fs_class_name(classifier, best));
  for (size_t i = 0; i < num_classes; ++i) printf("\t%.9g", probabilities[i]);
  printf("\n");
  free(probabilities);
  free((void *)image.data);
}

/* Starts the program once more with oneDNN switched on, unless the user has said otherwise: TensorFlow's
 * library reads that before `main`, and by itself leaves it off where there is no AVX-512. */
static void take_kernels_of_training(char **argv) {
  if (getenv("TF_ENABLE_ONEDNN_OPTS")) return;
  setenv("TF_ENABLE_ONEDNN_OPTS", "1", 1);
  execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
  char error[FS_ERROR_SIZE];
  int num_steps = FS_DEFAULT_STEPS, first = 1;
  take_kernels_of_training(argv);
  if (argc > 2 && strcmp(argv[1], "--num_steps") == 0) {
    char *end;
    long steps = strtol(argv[2], &end, 10);
    if (*end || end == argv[2] || steps < 0 || steps > 1000)
      fail("--num_steps", "expected a number of updates, 0 to 1000");
    num_steps = (int)steps;
    first = 3;
  }
  if (argc - first < 3) {
    fputs(usage, stderr);
    return 2;
  }
  path_list classes = list_classes(argv[first + 1]);
  support_set support = read_support(&classes);
  warn_of_sizes(&support, &classes);
  warn_of_equal_files(&support, 0);
  warn_of_equal_files(&support, 1);
  warn_of_known(&support, argv + first + 2, (size_t)(argc - first - 2));
  fs_model *model = fs_load(argv[first], error);
  if (!model) fail(argv[first], error);
  fs_classifier *classifier =
      fs_adapt(model, support.images, support.labels, support.files.count, num_steps, error);
  if (!classifier) fail_to_adapt(&support, argv[first + 1], error);
  printf("file\tpredicted");
  for (size_t i = 0; i < fs_num_classes(classifier); ++i)
    printf("\t%s", fs_class_name(classifier, i));
  printf("\n");
  for (int i = first + 2; i < argc; ++i) print_answer(classifier, argv[i]);
  fs_free_classifier(classifier);
  fs_free_model(model);
  for (size_t i = 0; i < support.files.count; ++i) free((void *)support.images[i].data);
  free_paths(&support.files);
  free(support.images);
  free(support.labels);
  free_paths(&classes);
  return EXIT_SUCCESS;
}
