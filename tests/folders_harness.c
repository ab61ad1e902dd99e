/* Prints the files that export/c reads from folders: the class or nothing, a tab, the file. */
#include <stdio.h>
#include <string.h>

#include "folders.h"

int main(int argc, char **argv) {
  if (strcmp(argv[1], "support") == 0) {
    class_list list = read_classes(argv[2]);
    for (size_t i = 0; i < list.count; ++i)
      for (size_t j = 0; j < list.classes[i].files.count; ++j)
        printf("%s\t%s%c", list.classes[i].name, list.classes[i].files.paths[j], 0);
    free_classes(&list);
  } else {
    image_class known[] = {{"ant", {NULL, 0}}, {"bee", {NULL, 0}}};
    class_list classes = {known, 2};
    path_list files = read_queries(argv + 2, (size_t)argc - 2, &classes, NULL);
    for (size_t i = 0; i < files.count; ++i) printf("\t%s%c", files.paths[i], 0);
    free_paths(&files);
  }
  return 0;
}
