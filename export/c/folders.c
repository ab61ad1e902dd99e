#define _DEFAULT_SOURCE /* realpath, getpwnam */

#include "folders.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { LONGEST = 4096 /* characters of a sentence */ };

/* Files and links that were left out. Clutter is counted; each of the others has its own sentence. */
typedef struct {
  size_t clutter;
  char *first_clutter;
  path_list others; /* sentences */
} left_out;

void fail(const char *sentence, ...) {
  va_list values;
  va_start(values, sentence);
  fputs("error: ", stderr);
  vfprintf(stderr, sentence, values);
  fputs(".\n", stderr);
  va_end(values);
  exit(EXIT_FAILURE);
}

void *checked(void *memory) {
  if (!memory) fail("there is no memory left");
  return memory;
}

static char *copy_of(const char *text) { return checked(strdup(text)); }

static void add(path_list *list, char *path) {
  list->paths = checked(realloc(list->paths, (list->count + 1) * sizeof *list->paths));
  list->paths[list->count++] = path;
}

static char *joined(const char *folder, const char *name) {
  size_t length = strlen(folder), size = length + strlen(name) + 2;
  const char *slash = length && folder[length - 1] == '/' ? "" : "/";
  char *path = checked(malloc(size));
  snprintf(path, size, "%s%s%s", folder, slash, name);
  return path;
}

void free_paths(path_list *list) {
  for (size_t i = 0; i < list->count; ++i) free(list->paths[i]);
  free(list->paths);
}

void free_classes(class_list *list) {
  for (size_t i = 0; i < list->count; ++i) {
    free(list->classes[i].name);
    free_paths(&list->classes[i].files);
  }
  free(list->classes);
}

/* Returns the home folder of a user; "" stands for the user who runs the program. */
static const char *home_of(const char *user, const char *typed) {
  const char *own = *user ? NULL : getenv("HOME");
  const struct passwd *entry = *user ? getpwnam(user) : NULL;
  if (own) return own;
  if (!entry)
    fail("%s: there is no home folder of that name: give the whole path, or ./ before a name that "
         "begins with ~", typed);
  return entry->pw_dir;
}

char *user_path(const char *typed) {
  if (!*typed) fail("a path is needed, got nothing");
  char *path = copy_of(typed);
  for (size_t length = strlen(path); length > 1 && path[length - 1] == '/';) path[--length] = 0;
  if (*path != '~') return path;
  char *rest = strchr(path, '/');
  if (rest) *rest++ = 0;
  const char *home = home_of(path + 1, typed);
  char *whole = rest ? joined(home, rest) : copy_of(home);
  free(path);
  return whole;
}

/* Compares paths part by part, so that a folder comes before its files. */
static int by_parts(const void *one, const void *other) {
  const unsigned char *a = *(const unsigned char *const *)one, *b = *(const unsigned char *const *)other;
  while (*a && *a == *b) ++a, ++b;
  return (*a == '/' ? 1 : *a ? *a + 1 : 0) - (*b == '/' ? 1 : *b ? *b + 1 : 0);
}

static void sort(path_list *list) {
  if (list->count) qsort(list->paths, list->count, sizeof *list->paths, by_parts);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static int is_one_of(const char *name, const char *const *names) {
  for (; *names; ++names)
    if (strcasecmp(name, *names) == 0) return 1;
  return 0;
}

static int is_clutter(const char *name) {
  static const char *const names[] = {
      "#recycle",  "$recycle.bin", "@eadir", "__macosx", "desktop.ini", "ehthumbs.db", "icon\r",
      "lost+found", "system volume information", "thumbs.db", NULL};
  return name[0] == '.' || is_one_of(name, names);
}

static int is_archive(const char *path) {
  static const char *const endings[] = {".7z",  ".bz2", ".gz", ".rar", ".tar",
                                        ".tgz", ".xz",  ".zip", ".zst", NULL};
  const char *dot = strrchr(base_name(path), '.');
  return dot && is_one_of(dot, endings);
}

/* Returns S_IFDIR, S_IFREG or another kind. Links are followed; 0 means that a link leads nowhere. */
static mode_t kind_of(const char *path) {
  struct stat facts;
  return stat(path, &facts) ? 0 : facts.st_mode & S_IFMT;
}

static char *real_path(const char *path) {
  char *real = realpath(path, NULL);
  if (!real) fail("%s cannot be read (%s)", path, strerror(errno));
  return real;
}

/* Whether a folder is the same as another one, or above it. Both paths have no links. */
static int is_around(const char *folder, const char *inner) {
  size_t length = strlen(folder);
  if (strcmp(folder, "/") == 0) return 1;
  return strncmp(folder, inner, length) == 0 && (inner[length] == '/' || !inner[length]);
}

static void leave(left_out *left, const char *path, const char *reason) {
  char *said = checked(malloc(LONGEST));
  snprintf(said, LONGEST, "%s (%s)", path, reason);
  add(&left->others, said);
}

static void say_what_was_left(left_out *left) {
  if (left->clutter) {
    fprintf(stderr, "left out: %s", left->first_clutter);
    if (left->clutter > 1) fprintf(stderr, " and %zu more", left->clutter - 1);
    fputs(" (hidden, or of the system)\n", stderr);
  }
  for (size_t i = 0; i < left->others.count; ++i)
    fprintf(stderr, "left out: %s\n", left->others.paths[i]);
  free(left->first_clutter);
  free_paths(&left->others);
}

/* Lists the paths in a folder, sorted, without clutter. */
static path_list names_in(const char *folder, left_out *left) {
  path_list all = {NULL, 0}, list = {NULL, 0};
  struct dirent *entry;
  DIR *opened = opendir(folder);
  if (!opened) fail("%s cannot be read (%s)", folder, strerror(errno));
  while ((entry = readdir(opened)))
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      add(&all, joined(folder, entry->d_name));
  closedir(opened);
  sort(&all);
  for (size_t i = 0; i < all.count; ++i) {
    if (!is_clutter(base_name(all.paths[i]))) {
      add(&list, all.paths[i]);
    } else {
      if (!left->clutter++) left->first_clutter = copy_of(all.paths[i]);
      free(all.paths[i]);
    }
  }
  free(all.paths);
  return list;
}

/* Divides the entries of a folder into folders and files. */
static void entries(const char *folder, path_list *folders, path_list *files, left_out *left) {
  if (kind_of(folder) != S_IFDIR)
    fail("%s %s", folder, is_archive(folder) ? "is an archive: unpack it" : "is not a folder");
  char *here = real_path(folder);
  path_list names = names_in(folder, left);
  for (size_t i = 0; i < names.count; ++i) {
    char *path = names.paths[i];
    mode_t kind = kind_of(path);
    if (kind == S_IFREG) {
      add(files, path);
    } else if (kind == S_IFDIR) {
      char *real = real_path(path);
      if (is_around(real, here)) {
        leave(left, path, "a link to a folder that it is in");
        free(path);
      } else {
        add(folders, path);
      }
      free(real);
    } else {
      leave(left, path, "a link to nothing, or no file");
      free(path);
    }
  }
  free(names.paths);
  free(here);
}

static int contains(const path_list *list, const char *path) {
  for (size_t i = 0; i < list->count; ++i)
    if (strcmp(list->paths[i], path) == 0) return 1;
  return 0;
}

/* Adds all files in a folder and in the folders below it, each folder once. */
static void add_below(const char *folder, const char *root, path_list *files, left_out *left) {
  path_list seen = {NULL, 0}, waiting = {NULL, 0};
  char *outer = real_path(root);
  add(&waiting, copy_of(folder));
  while (waiting.count) {
    char *one = waiting.paths[--waiting.count];
    char *real = real_path(one);
    if (is_around(real, outer) || contains(&seen, real)) {
      leave(left, one, "a link to a folder that is read already, or it is in");
      free(real);
    } else {
      path_list folders = {NULL, 0};
      add(&seen, real);
      entries(one, &folders, files, left);
      while (folders.count) add(&waiting, folders.paths[--folders.count]);
      free(folders.paths);
    }
    free(one);
  }
  sort(files);
  free_paths(&seen);
  free(waiting.paths);
  free(outer);
}

static int has_name(const path_list *folders, const char *name) {
  for (size_t i = 0; i < folders->count; ++i)
    if (strcmp(base_name(folders->paths[i]), name) == 0) return 1;
  return 0;
}

/* Returns the files of each class. root: the support folder; folders, files: its entries. */
static class_list classes_in(const char *root, const path_list *folders, const path_list *files,
                             left_out *left) {
  class_list list = {NULL, 0};
  if (has_name(folders, "support") && has_name(folders, "query"))
    fail("%s holds the folders support and query, which are no classes: give %s/support as the "
         "support set and %s/query as the images to classify", root, root, root);
  if (!folders->count) fail("%s has no class folders: expected %s/<class>/<image>", root, root);
  if (files->count) fail("%s is in no class folder: move it into one, or away", files->paths[0]);
  list.classes = checked(calloc(folders->count, sizeof *list.classes));
  for (; list.count < folders->count; ++list.count) {
    image_class *one = &list.classes[list.count];
    one->name = copy_of(base_name(folders->paths[list.count]));
    add_below(folders->paths[list.count], root, &one->files, left);
  }
  for (size_t i = 0; i < list.count; ++i)
    if (!list.classes[i].files.count) fail("The class folder %s holds no image", folders->paths[i]);
  return list;
}

class_list read_classes(const char *root) {
  left_out left = {0, NULL, {NULL, 0}};
  path_list folders = {NULL, 0}, files = {NULL, 0};
  entries(root, &folders, &files, &left);
  class_list list = classes_in(root, &folders, &files, &left);
  free_paths(&folders);
  free_paths(&files);
  say_what_was_left(&left);
  return list;
}

static int is_class(const class_list *classes, const char *name) {
  for (size_t i = 0; i < classes->count; ++i)
    if (strcmp(classes->classes[i].name, name) == 0) return 1;
  return 0;
}

/* Ends the program because no class has the name of this folder of queries. */
static void fail_unknown_class(const char *root, const char *name, const class_list *classes) {
  char names[LONGEST] = "";
  for (size_t i = 0, used = 0; i < classes->count && used < sizeof names; ++i)
    used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                             classes->classes[i].name);
  fail("%s/%s is none of the classes of the support folder (%s): rename it, or put images of unknown "
       "class into one folder without class folders", root, name, names);
}

/* Adds the files below query folders that have names of classes. */
static void add_labelled(const char *root, const path_list *folders, path_list *files,
                         const class_list *classes, const char *other, left_out *left) {
  const path_list none = {NULL, 0};
  class_list labelled = classes_in(root, folders, &none, left);
  for (size_t i = 0; i < labelled.count; ++i) {
    image_class *one = &labelled.classes[i];
    if (!is_class(classes, one->name) && !(other && strcmp(one->name, other) == 0)) fail_unknown_class(root, one->name, classes);
    for (size_t j = 0; j < one->files.count; ++j) add(files, copy_of(one->files.paths[j]));
  }
  free_classes(&labelled);
}

static void add_folder(const char *root, path_list *files, const class_list *classes,
                       const char *other, left_out *left) {
  path_list folders = {NULL, 0}, below = {NULL, 0};
  entries(root, &folders, &below, left);
  if (folders.count && !below.count) {
    add_labelled(root, &folders, files, classes, other, left);
    free_paths(&folders);
    return;
  }
  for (size_t i = 0; i < folders.count; ++i)
    if (is_class(classes, base_name(folders.paths[i]))) {
      fprintf(stderr, "%s holds files beside its class folders, as %s: all of it counts as of unknown "
              "class.\n", root, base_name(below.paths[0]));
      break;
    }
  for (size_t i = 0; i < folders.count; ++i) add_below(folders.paths[i], root, &below, left);
  if (!below.count) fail("%s holds no image", root);
  sort(&below);
  for (size_t i = 0; i < below.count; ++i) add(files, copy_of(below.paths[i]));
  free_paths(&folders);
  free_paths(&below);
}

path_list read_queries(char *const *typed, size_t count, const class_list *classes,
                       const char *other) {
  left_out left = {0, NULL, {NULL, 0}};
  path_list files = {NULL, 0};
  for (size_t i = 0; i < count; ++i) {
    char *path = user_path(typed[i]);
    mode_t kind = kind_of(path);
    if (kind == S_IFDIR) {
      add_folder(path, &files, classes, other, &left);
      free(path);
      continue;
    }
    if (!kind) fail("%s: there is no such file or folder", path);
    if (kind != S_IFREG) fail("%s is neither a file nor a folder", path);
    if (is_archive(path)) fail("%s is an archive: unpack it", path);
    add(&files, path);
  }
  say_what_was_left(&left);
  return files;
}
