/* Warns about pictures that make answers unreliable, in the same cases and words as export/remarks.py.
 *
 * In a support set: only one class, classes of very different sizes, blank pictures, the same picture in two
 * classes or twice in one. In queries: blank pictures, pictures of the support set, and light figures on a
 * dark ground while the support pictures have dark figures on a light ground, or the reverse.
 */
#ifndef REMARKS_H
#define REMARKS_H

#include <stddef.h>

enum { LOOK_SIDE = 16, LOOK_CHANNELS = 3 };

/* The properties of a picture that warnings need. */
typedef struct {
  const char *name;  /* name of the file */
  const char *label; /* its class; NULL for a query */
  unsigned char thumbnail[LOOK_SIDE * LOOK_SIDE * LOOK_CHANNELS]; /* the picture in small */
  size_t size;                                                   /* bytes of the thumbnail in use */
  int is_blank; /* whether all its pixels are nearly the same */
  int figure;   /* -1 for a figure darker than its plain ground, 1 for a lighter one, else 0 */
} look;

/* Returns the properties of a picture. pixels: 0 ... 255, [height, width, channels]; all pictures have the
 * same shape. */
look look_at(const char *name, const char *label, const float *pixels, size_t height, size_t width,
             size_t channels);

/* Warns on stderr if there is only one class, or if classes differ much in size. This needs no pixels. */
void warn_of_sizes(const char *const *labels, size_t count);

/* Warn on stderr about the pictures of a support set, and about queries to it. */
void warn_of_support(const look *support, size_t count);
void warn_of_queries(const look *support, size_t support_count, const look *queries, size_t count);

#endif
