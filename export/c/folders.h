/* Reads folders of images as the Python clients do (export/folders.py).
 *
 * Hidden files and files of the operating system are left out, and so are links back to a folder above them.
 * A line on stderr names them. Other linked folders and files are read. An error ends the program with a
 * sentence on stderr.
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

/* Ends the program with "error: SENTENCE." on stderr. sentence: a format of printf, without the full stop. */
_Noreturn void fail(const char *sentence, ...) __attribute__((format(printf, 1, 2)));

/* Returns the memory. If it is NULL, ends the program. */
void *checked(void *memory);

/* Returns a copy of a path, with ~ or ~name at its beginning replaced by the home folder of the user. */
char *user_path(const char *typed);

/* Reads the class folders of a support folder. */
class_list read_classes(const char *root);
void free_classes(class_list *list);

/* Returns the files to classify: paths of files, and all files in and below folders. If a folder has only
 * folders in it, each must have the name of a class, or the name `other` unless that is NULL. */
path_list read_queries(char *const *typed, size_t count, const class_list *classes,
                       const char *other);
void free_paths(path_list *list);

#endif
