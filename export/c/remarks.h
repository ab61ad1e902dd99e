/* What makes an answer worth little or nothing, found in the pictures before it is believed: as
 * export/remarks.py finds it, and in its words.
 *
 * Of a support set: one class alone, classes of very different sizes, blank pictures, the same picture in
 * two classes or twice in one. Of queries: blank ones, some that are among the support set, and figures
 * lighter than their ground where those of the support set are darker, or the other way round.
 */
#ifndef REMARKS_H
#define REMARKS_H

#include <stddef.h>

enum { LOOK_SIDE = 16, LOOK_CHANNELS = 3 };

/* What is remembered of a picture. */
typedef struct {
  const char *name;  /* of the file */
  const char *label; /* its class; NULL for a query */
  unsigned char thumbnail[LOOK_SIDE * LOOK_SIDE * LOOK_CHANNELS]; /* mean levels of its parts */
  size_t size;                                                   /* of the thumbnail */
  int is_blank; /* whether all its pixels are nearly the same */
  int figure;   /* -1 for a figure darker than its plain ground, 1 for a lighter one, else 0 */
} look;

/* Remembers a picture of pixels 0 ... 255, [height, width, channels], of all pictures in the same shape. */
look look_at(const char *name, const char *label, const float *pixels, size_t height, size_t width,
             size_t channels);

/* Says on stderr what is wrong with the sizes of classes, which needs no pixels. */
void warn_of_sizes(const char *const *labels, size_t count);

/* Says on stderr what is wrong with the pictures of a support set, or with queries to it. */
void warn_of_support(const look *support, size_t count);
void warn_of_queries(const look *support, size_t support_count, const look *queries, size_t count);

#endif
