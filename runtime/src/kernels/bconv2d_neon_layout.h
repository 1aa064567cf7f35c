/* What the NEON convolution prepares once: filters in blocks of eight, and from runs what its loops take. */
#ifndef LQC_BCONV2D_NEON_LAYOUT_H
#define LQC_BCONV2D_NEON_LAYOUT_H

#include "kernels.h"

#define LQC_NEON_CHANNELS 8u
/* Packed weights: blocks of eight filters, zero filters behind. Bytes of a block for each word of a filter. PAIRS, for
 * taps of an even number of words: pair by pair of words the eight filters' pairs. WORDS, where steps start at any
 * word: for every word the eight filters' pairs that start there and then the word alone, which is three times the
 * bytes, of which an image's inside reads a half. */
#define LQC_NEON_PAIRS_WORD_BYTES 64u
#define LQC_NEON_WORDS_WORD_BYTES 192u

/* What is met in one go; in bytes, so that the assembly has nothing to compute. */
typedef struct lqc_neon_step {
  int64_t low,
      high;        /* from a pixel's place to the input's first two words; of single words, high is how many are left */
  int64_t weights; /* from a block's filters to those of the two words, or of the word */
  int64_t words;   /* even: input and filters go on in pairs; 1; or 0, behind the last */
} lqc_neon_step;

/* The runs of a region. A cross is a pair whose words are not neighbours in the input: the last one of a run and the
 * first of the next. */
typedef struct lqc_neon_steps {
  uint64_t pairs, crosses; /* entries of each kind */
  lqc_neon_step entries[]; /* pairs, crosses, single words, and one of none */
} lqc_neon_steps;

size_t lqc_neon_pairs_bytes(uint32_t out_channels, uint32_t filter_words);
size_t lqc_neon_words_bytes(uint32_t out_channels, uint32_t filter_words);
void lqc_neon_pack_pairs(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words);
void lqc_neon_pack_words(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words);
size_t lqc_neon_arranged_bytes(uint32_t run_count);
void lqc_neon_arrange_pairs(void *arranged, const lqc_run *runs, uint32_t run_count);
void lqc_neon_arrange_words(void *arranged, const lqc_run *runs, uint32_t run_count);

#endif /* LQC_BCONV2D_NEON_LAYOUT_H */
