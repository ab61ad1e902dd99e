/* Runs the program of export/c on many cases in one process, and loads each model once. `main` is called for
 * each case, and `exit` ends only the case.
 *
 * The argument is the path of a file with the cases. Its fields end with a zero byte. A case has the number of
 * its arguments, the file for its output, the file for its errors, and the arguments. The exit code is written
 * at the end of the errors.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "few_shot.h"

int adapt_main(int argc, char **argv);

static jmp_buf ended;
static int code;

_Noreturn void leave_case(int with) {
  code = with;
  longjmp(ended, 1);
}

/* Loads each model once, and keeps it for later cases. */
fs_model *load_once(const char *directory, char *error) {
  static struct {
    char directory[4096];
    fs_model *model;
  } loaded[8];
  size_t i = 0;
  while (loaded[i].model && strcmp(loaded[i].directory, directory) != 0) ++i;
  if (loaded[i].model) return loaded[i].model;
  snprintf(loaded[i].directory, sizeof loaded[i].directory, "%s", directory);
  return loaded[i].model = fs_load(directory, error);
}

void keep_model(fs_model *model) { (void)model; }

int main(int argc, char **argv) {
  static char fields[1 << 20];
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  if (!file) return 2;
  char *at = fields, *end = fields + fread(fields, 1, sizeof fields - 1, file);
  fclose(file);
  while (at < end) {
    char *case_argv[64] = {argv[0]};
    int number = atoi(at);
    char *out = at + strlen(at) + 1, *err = out + strlen(out) + 1;
    at = err + strlen(err) + 1;
    for (int i = 1; i <= number; ++i, at += strlen(at) + 1) case_argv[i] = at;
    if (!freopen(out, "w", stdout) || !freopen(err, "w", stderr)) return 2;
    if (!setjmp(ended)) code = adapt_main(number + 1, case_argv);
    fprintf(stderr, "exit: %d\n", code);
  }
  return 0;
}
