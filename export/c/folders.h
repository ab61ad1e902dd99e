/* Folders of images as they are on people's disks, read as the Python clients read them
 * (export/folders.py).
 *
 * What an operating system or another program keeps in a folder is left out, and said on stderr; so is a
 * link that leads back to a folder above it. Linked folders and files are taken. Whatever fails ends the
 * program with a sentence on stderr.
 */
#ifndef FOLDERS_H
#define FOLDERS_H

#include <stddef.h>

/* A growing list of paths. */
typedef struct {
  char **paths;
  size_t count;
} path_list;

/* A class folder: its name, and all files in and below it, sorted. */
typedef struct {
  char *name;
  path_list files;
} image_class;

typedef struct {
  image_class *classes;
  size_t count;
} class_list;

/* Ends the program with "error: ", a sentence without its full stop as for printf, and the full stop. */
_Noreturn void fail(const char *sentence, ...) __attribute__((format(printf, 1, 2)));

/* Returns the memory, or ends the program where there was none. */
void *checked(void *memory);

/* Returns a path as it was typed, in memory of its own; ~ is the user's own folder, ~name that of another. */
char *user_path(const char *typed);

/* Reads the class folders of a support folder. */
class_list read_classes(const char *root);
void free_classes(class_list *list);

/* Returns the files to classify: the paths themselves, and of a folder all files in and below it. Where a
 * folder holds nothing but folders, these have the names of classes, or that other one unless it is NULL. */
path_list read_queries(char *const *typed, size_t count, const class_list *classes,
                       const char *other);
void free_paths(path_list *list);

#endif
