#include "bconv2d_neon_layout.h"

#include <string.h>

#include "kernels_isa.h"

enum { CHANNELS = LQC_NEON_CHANNELS };

/* ---- Filters ----------------------------------------------------------------------------------------------------- */

size_t lqc_neon_pairs_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, CHANNELS, (size_t)filter_words * (LQC_NEON_PAIRS_WORD_BYTES / CHANNELS));
}

size_t lqc_neon_words_bytes(uint32_t out_channels, uint32_t filter_words) {
  return lqc_packed_bytes(out_channels, CHANNELS, (size_t)filter_words * (LQC_NEON_WORDS_WORD_BYTES / CHANNELS));
}

static uint64_t *block_of(void *packed, uint32_t channel, uint32_t filter_words, uint32_t word_bytes) {
  return (uint64_t *)packed + (size_t)(channel / CHANNELS) * filter_words * (word_bytes / sizeof(uint64_t));
}

void lqc_neon_pack_pairs(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  memset(packed, 0, lqc_neon_pairs_bytes(out_channels, filter_words));
  for (uint32_t c = 0; c < out_channels; ++c) {
    uint64_t *block = block_of(packed, c, filter_words, LQC_NEON_PAIRS_WORD_BYTES);
    for (uint32_t w = 0; w < filter_words; ++w) {
      block[((size_t)(w / 2) * CHANNELS + c % CHANNELS) * 2 + w % 2] = *filters++;
    }
  }
}

void lqc_neon_pack_words(void *packed, const uint64_t *filters, uint32_t out_channels, uint32_t filter_words) {
  memset(packed, 0, lqc_neon_words_bytes(out_channels, filter_words));
  for (uint32_t c = 0; c < out_channels; ++c, filters += filter_words) {
    uint64_t *to = block_of(packed, c, filter_words, LQC_NEON_WORDS_WORD_BYTES);
    for (uint32_t w = 0; w < filter_words; ++w, to += LQC_NEON_WORDS_WORD_BYTES / sizeof(uint64_t)) {
      to[2 * (c % CHANNELS)] = filters[w];
      to[2 * (c % CHANNELS) + 1] = w + 1 < filter_words ? filters[w + 1] : 0; /* the last word starts no pair */
      to[2 * CHANNELS + c % CHANNELS] = filters[w];
    }
  }
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

typedef enum step_kind { PAIRS, CROSS, WORD, KIND_COUNT } step_kind;

/* entries NULL: they are counted. */
typedef struct step_list {
  lqc_neon_step *entries;
  size_t counts[KIND_COUNT], firsts[KIND_COUNT];
} step_list;

static void add_step(step_list *list, step_kind kind, ptrdiff_t low, ptrdiff_t high, size_t weights, size_t words) {
  const size_t n = list->firsts[kind] + list->counts[kind]++;
  if (list->entries) {
    list->entries[n] = (lqc_neon_step){low * (ptrdiff_t)sizeof(uint64_t), high * (ptrdiff_t)sizeof(uint64_t),
                                       (int64_t)weights, (int64_t)words};
  }
}

/* Two words of a filter are packed as a pair where they follow each other: so a cross can be made of them. */
static void add_runs(step_list *list, const lqc_run *runs, uint32_t run_count, uint32_t word_bytes) {
  uint32_t taken = 0; /* words of the run, by the run before */
  for (uint32_t r = 0; r < run_count; ++r) {
    const lqc_run *run = &runs[r], *next = r + 1 < run_count ? run + 1 : NULL;
    const uint32_t left = run->words - taken, even = left - left % 2;
    if (even > 0) {
      const ptrdiff_t first = run->input_offset + (ptrdiff_t)taken;
      add_step(list, PAIRS, first, first + 1, ((size_t)run->weight_word + taken) * word_bytes, even);
    }
    taken = 0;
    if (left % 2 == 0) {
      continue;
    }
    const ptrdiff_t last = run->input_offset + (ptrdiff_t)run->words - 1;
    const size_t weights = ((size_t)run->weight_word + run->words - 1) * word_bytes;
    if (next && next->weight_word == run->weight_word + run->words) {
      add_step(list, CROSS, last, next->input_offset, weights, 2);
      taken = 1;
    } else {
      add_step(list, WORD, last, last, weights + 2 * CHANNELS * sizeof(uint64_t), 1);
    }
  }
}

size_t lqc_neon_arranged_bytes(uint32_t run_count) {
  return sizeof(lqc_neon_steps) + (2 * (size_t)run_count + 1) * sizeof(lqc_neon_step);
}

static void arrange(void *arranged, const lqc_run *runs, uint32_t run_count, uint32_t word_bytes) {
  lqc_neon_steps *steps = arranged;
  step_list list = {0};
  add_runs(&list, runs, run_count, word_bytes);
  const size_t pairs = list.counts[PAIRS], crosses = list.counts[CROSS], words = list.counts[WORD];
  *steps = (lqc_neon_steps){.pairs = pairs, .crosses = crosses};
  list = (step_list){.entries = steps->entries, .firsts = {0, pairs, pairs + crosses}};
  add_runs(&list, runs, run_count, word_bytes);
  for (size_t w = 0; w < words; ++w) {
    steps->entries[pairs + crosses + w].high = (int64_t)(words - w);
  }
  steps->entries[pairs + crosses + words] = (lqc_neon_step){0, 0, 0, 0};
}

void lqc_neon_arrange_pairs(void *arranged, const lqc_run *runs, uint32_t run_count) {
  arrange(arranged, runs, run_count, LQC_NEON_PAIRS_WORD_BYTES);
}

void lqc_neon_arrange_words(void *arranged, const lqc_run *runs, uint32_t run_count) {
  arrange(arranged, runs, run_count, LQC_NEON_WORDS_WORD_BYTES);
}
