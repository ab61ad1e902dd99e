#define _DEFAULT_SOURCE /* realpath */

#include "folders.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { LONGEST = 4096 /* characters of a sentence */ };

/* What was left out: clutter is counted, of the rest each is said. */
typedef struct {
  size_t clutter;
  char *first_clutter;
  path_list others; /* sentences */
} left_out;

void fail(const char *what, const char *why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  exit(EXIT_FAILURE);
}

void *checked(void *memory) {
  if (!memory) fail("memory", "there is none left");
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

char *user_path(const char *typed) {
  const char *home = getenv("HOME");
  if (!*typed) fail("path", "a path is needed, got nothing");
  if (typed[0] != '~' || (typed[1] && typed[1] != '/')) return copy_of(typed);
  if (!home) fail(typed, "there is no home folder: give the whole path");
  return typed[1] ? joined(home, typed + 2) : copy_of(home);
}

/* Orders paths by their parts: a folder's own name counts before what is in it. */
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

/* S_IFDIR, S_IFREG or another kind, of what a link leads to; 0 where it leads nowhere. */
static mode_t kind_of(const char *path) {
  struct stat facts;
  return stat(path, &facts) ? 0 : facts.st_mode & S_IFMT;
}

static char *real_path(const char *path) {
  char *real = realpath(path, NULL);
  if (!real) fail(path, strerror(errno));
  return real;
}

/* Whether a real folder is another one, or around it. */
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

/* Lists what has a name in a folder, sorted, clutter left out. */
static path_list names_in(const char *folder, left_out *left) {
  path_list all = {NULL, 0}, list = {NULL, 0};
  struct dirent *entry;
  DIR *opened = opendir(folder);
  if (!opened) fail(folder, strerror(errno));
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

/* Sorts what is in a folder into folders and files. */
static void entries(const char *folder, path_list *folders, path_list *files, left_out *left) {
  if (kind_of(folder) != S_IFDIR)
    fail(folder, is_archive(folder) ? "is an archive: unpack it" : "is not a folder");
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

class_list read_classes(const char *root) {
  left_out left = {0, NULL, {NULL, 0}};
  path_list folders = {NULL, 0}, files = {NULL, 0};
  class_list list = {NULL, 0};
  entries(root, &folders, &files, &left);
  if (has_name(&folders, "support") && has_name(&folders, "query"))
    fail(root, "it holds the folders support and query: give those, one by one");
  if (!folders.count) fail(root, "has no class folders: expected one folder of images a class");
  if (files.count) fail(files.paths[0], "is in no class folder: move it into one, or away");
  list.classes = checked(calloc(folders.count, sizeof *list.classes));
  for (; list.count < folders.count; ++list.count) {
    image_class *one = &list.classes[list.count];
    one->name = copy_of(base_name(folders.paths[list.count]));
    add_below(folders.paths[list.count], root, &one->files, &left);
  }
  for (size_t i = 0; i < list.count; ++i)
    if (!list.classes[i].files.count) fail(folders.paths[i], "the class folder holds no image");
  free_paths(&folders);
  free(files.paths);
  say_what_was_left(&left);
  return list;
}

path_list read_queries(char *const *typed, size_t count) {
  left_out left = {0, NULL, {NULL, 0}};
  path_list files = {NULL, 0};
  for (size_t i = 0; i < count; ++i) {
    char *path = user_path(typed[i]);
    mode_t kind = kind_of(path);
    if (kind != S_IFDIR) {
      if (!kind) fail(path, "there is no such file or folder");
      if (kind != S_IFREG) fail(path, "is neither a file nor a folder");
      add(&files, path);
      continue;
    }
    path_list folders = {NULL, 0}, below = {NULL, 0};
    entries(path, &folders, &below, &left);
    if (has_name(&folders, "support") && has_name(&folders, "query"))
      fail(path, "it holds the folders support and query: give those, one by one");
    for (size_t j = 0; j < folders.count; ++j) add_below(folders.paths[j], path, &below, &left);
    if (!below.count) fail(path, "holds no image");
    sort(&below);
    for (size_t j = 0; j < below.count; ++j) add(&files, below.paths[j]);
    free(below.paths);
    free_paths(&folders);
    free(path);
  }
  say_what_was_left(&left);
  return files;
}
