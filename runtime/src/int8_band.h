/* The rows of an image that a few rows of outputs see, converted to what an int8 kernel multiplies, with the padding
 * around them. The patch of every output pixel is then in place, a run for each row of the window: nothing is gathered.
 */
#ifndef LQC_INT8_BAND_H
#define LQC_INT8_BAND_H

#include <stdbool.h>

#include "window.h"

typedef struct lqc_int8_band {
  uint32_t groups, depth;
  uint32_t out_rows;             /* output rows whose taps are there at once */
  size_t row_bytes, pixel_bytes; /* from row to row of taps, and from output pixel to output pixel */
  size_t out_row_bytes;          /* from the first row of taps of an output row to that of the next */
  size_t group_bytes;            /* from group to group */
  size_t bytes;                  /* of all groups, what a kernel may read and write beyond included */
} lqc_int8_band;

/* Whether a convolution may have a band: neighbouring columns, a kernel that takes runs, and not too many bytes.
 * `depth`: input channels of a group; each group has rows of its own. */
bool lqc_int8_plan_band(const lqc_int8_kernel *kernel, const lqc_axis *rows, const lqc_axis *columns, uint32_t groups,
                        uint32_t depth, lqc_int8_band *band);

/* The band of `count` output rows from `row` on, at most band->out_rows. memory: [band->bytes]. */
void lqc_int8_fill_band(const lqc_int8_kernel *kernel, const lqc_axis *rows, const lqc_axis *columns,
                        const lqc_int8_band *band, const int8_t *input, uint32_t row, uint32_t count, uint8_t *memory);

#endif /* LQC_INT8_BAND_H */
