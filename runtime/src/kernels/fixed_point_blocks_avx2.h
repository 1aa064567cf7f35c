/* What both widths of lanes share that have loops of their own for usual programs: 32 channels go through all steps and
 * stores in registers, a pixel after the other. What channels have is read where it is; for some pixels it stays in the
 * first-level cache. Included once by the file of each width, which defines before LQC_LANE, a lane's type. Private to
 * kernels/. */
#ifndef LQC_FIXED_POINT_BLOCKS_AVX2_H
#define LQC_FIXED_POINT_BLOCKS_AVX2_H

#include <immintrin.h>

#include "fixed_point_programs.h"

enum {
  BLOCK = 32,
  LANES = 32 / (int)sizeof(LQC_LANE),
  VECTORS = BLOCK / LANES,
  WORDS = 16, /* of 16 bits a vector */
  QUARTERS_0213 = 0xd8
};

/* What a block of channels has. */
typedef struct block {
  const lqc_usual_program *program;
  uint32_t count; /* channels there are, 1 .. BLOCK */
  const LQC_LANE *multiplier, *offset, *shift, *operand_shift, *pairs, *half, *right, *thresholds;
  __m256i full, high, low, y_scale, x_scale;
  __m128i full_right;
} block;

/* What it has in one pixel: BLOCK elements may be read. */
typedef struct operands {
  const uint16_t *sums;
  const int32_t *integers;
  const int8_t *bytes, *input;
} operands;

/* y behind all steps; bytes in the order of channels, -1 where it is above its threshold; and what is stored as int8,
 * save that -128 may be among it. */
typedef struct block_functions {
  void (*begin)(const block *b, const operands *from, __m256i y[VECTORS]);
  __m256i (*above)(const block *b, const __m256i y[VECTORS]);
  __m256i (*rounded)(const block *b, const __m256i y[VECTORS]);
} block_functions;

LQC_INLINE __m256i load(const void *from) {
  return _mm256_loadu_si256(from);
}

LQC_INLINE const LQC_LANE *lanes_of(const void *lanes, size_t channel) {
  return lanes ? (const LQC_LANE *)lanes + channel : NULL;
}

/* From popcounts to v in 16 bits; lqc_has_narrow_sums() says what it is. A RELU behind it is a limit. */
LQC_INLINE void set_sums(block *b, const lqc_lane_pixels *pixels) {
  const int32_t step = pixels->step_log2, limit = pixels->limit < INT16_MAX ? pixels->limit : INT16_MAX;
  b->full = _mm256_set1_epi16((short)((pixels->full + (1 << (step - 1))) >> 1));
  b->high = _mm256_set1_epi16((short)limit);
  b->low = _mm256_set1_epi16((short)(b->program->relu_before ? 0 : -limit));
  b->full_right = _mm_cvtsi32_si128(step - 1);
}

/* v of 16 channels. */
LQC_INLINE __m256i load_sums(const block *b, const uint16_t *sums) {
  __m256i v = _mm256_sra_epi16(_mm256_sub_epi16(b->full, load(sums)), b->full_right);
  return _mm256_max_epi16(_mm256_min_epi16(v, b->high), b->low);
}

LQC_INLINE block block_at(const lqc_usual_program *program, const lqc_lane_pixels *pixels, uint32_t channels,
                          uint32_t channel) {
  block b = {.program = program, .count = lqc_min_u32(channels - channel, BLOCK)};
  if (pixels->source == LQC_LANES_SUMS) {
    set_sums(&b, pixels);
  }
  if (program->pair) {
    b.pairs = lanes_of(program->pair->pairs, channel);
    b.offset = lanes_of(program->pair->offset, channel);
    b.y_scale = _mm256_set1_epi16((short)(1 << program->pair->y_log2));
    b.x_scale = _mm256_set1_epi16((short)(1 << program->pair->x_log2));
  }
  LQC_SET_LANES(&b, program, channel);
  return b;
}

/* BLOCK bytes to read: `from`, or a copy of the `count` there are. */
LQC_INLINE const int8_t *bytes_at(const int8_t *from, uint32_t count, int8_t *copy) {
  if (count == BLOCK) {
    return from;
  }
  memset(copy, 0, BLOCK);
  memcpy(copy, from, count);
  return copy;
}

LQC_INLINE void store_bytes(int8_t *out, uint32_t count, __m256i bytes) {
  if (count == BLOCK) {
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
    return;
  }
  int8_t copy[BLOCK];
  _mm256_storeu_si256((__m256i *)(void *)copy, bytes);
  memcpy(out, copy, count);
}

/* Four vectors of 8 lanes to bytes, saturating, in halves of vectors: their order is another. */
LQC_INLINE __m256i pack(const __m256i lanes[4]) {
  return _mm256_packs_epi16(_mm256_packs_epi32(lanes[0], lanes[1]), _mm256_packs_epi32(lanes[2], lanes[3]));
}

/* Some pixels of one block. low_bits: of the first block of a word, for the second. Inlined, with its functions. */
LQC_INLINE void run_block(const block *b, const lqc_lane_pixels *pixels, uint32_t first, uint32_t end, size_t channel,
                          uint32_t *low_bits, bool is_last, const lqc_lane_source source,
                          const block_functions *functions) {
  const lqc_usual_program *program = b->program;
  const block_stores *stores = &program->stores;
  const __m256i least = _mm256_set1_epi8(-INT8_MAX);
  const uint32_t mask = (uint32_t)lqc_low_mask(b->count);
  const size_t word_of = channel / LQC_WORD_BITS;
  const bool is_high = channel % LQC_WORD_BITS != 0, is_whole = is_high || is_last;
  const uint64_t invert = stores->signs && stores->signs->invert ? stores->signs->invert[word_of] : 0;
  const int8_t *input = program->input ? program->input + channel : NULL;
  int8_t *integers = stores->integers ? stores->integers_out + channel : NULL;
  uint8_t *signs = stores->signs ? stores->signs_out + word_of * sizeof(uint64_t) : NULL;
  const uint8_t *values = (const uint8_t *)pixels->values + first * pixels->value_bytes;
  for (uint32_t p = first; p < end; ++p, values += pixels->value_bytes, ++low_bits) {
    const size_t place = lqc_lane_place(pixels, p);
    int8_t value_copy[BLOCK], input_copy[BLOCK];
    operands from = {NULL, NULL, NULL, NULL};
    __m256i y[VECTORS];
    if (source == LQC_LANES_SUMS) {
      from.sums = (const uint16_t *)(const void *)values + channel;
    } else if (source == LQC_LANES_INT32) {
      from.integers = (const int32_t *)(const void *)values + channel;
    } else {
      from.bytes = bytes_at((const int8_t *)values + channel, b->count, value_copy);
    }
    if (input) {
      from.input = bytes_at(input + place * program->input_bytes, b->count, input_copy);
    }
    functions->begin(b, &from, y);
    if (signs) {
      const uint32_t bits = ~(uint32_t)_mm256_movemask_epi8(functions->above(b, y)) & mask;
      if (is_whole) {
        const uint64_t word = (is_high ? *low_bits | (uint64_t)bits << BLOCK : bits) ^ invert;
        memcpy(signs + place * stores->signs_bytes, &word, sizeof(word));
      } else {
        *low_bits = bits;
      }
    }
    if (integers) {
      store_bytes(integers + place * stores->integers_bytes, b->count,
                  _mm256_max_epi8(functions->rounded(b, y), least));
    }
  }
}

LQC_INLINE void run_program(const lqc_usual_program *program, const lqc_lane_pixels *pixels, uint32_t channels,
                            const lqc_lane_source source, const block_functions *functions) {
  for (uint32_t first = 0; first < pixels->count; first += LQC_LANE_PIXELS) {
    const uint32_t end = first + lqc_min_u32(pixels->count - first, LQC_LANE_PIXELS);
    uint32_t low_bits[LQC_LANE_PIXELS]; /* of a word, wait for the other half: one store for both */
    for (uint32_t channel = 0; channel < channels; channel += BLOCK) {
      const block b = block_at(program, pixels, channels, channel);
      run_block(&b, pixels, first, end, channel, low_bits, channels - channel <= BLOCK, source, functions);
    }
  }
}

#endif /* LQC_FIXED_POINT_BLOCKS_AVX2_H */
