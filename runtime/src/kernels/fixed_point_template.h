/* Fixed point in lanes of 32 and of 64 bits. Included once for each instruction set, which its compiler options choose;
 * LQC_ISA(name) is what a name becomes. */
#include <string.h>

#include "kernels_isa.h"

/* Byte i, 0 or 1, becomes bit i. In each product the bits 7 k + 8 i meet in the top byte, bit 56 + i, for k = 8 - i
 * alone. */
static uint64_t pack_bytes(const uint8_t bytes[LQC_WORD_BITS]) {
  uint64_t word = 0;
  for (uint32_t i = 0; i < 8; ++i) {
    uint64_t eight;
    memcpy(&eight, bytes + (size_t)8 * i, sizeof(eight));
    word |= eight * 0x0102040810204080u >> 56 << (8 * i);
  }
  return word;
}

#define LQC_LANE int32_t
#define LQC_ULANE uint32_t
#define LQC_LANES(name) name##_narrow
#include "fixed_point_lanes.h"
#undef LQC_LANE
#undef LQC_ULANE
#undef LQC_LANES

#define LQC_LANE int64_t
#define LQC_ULANE uint64_t
#define LQC_LANES(name) name##_wide
#include "fixed_point_lanes.h"
#undef LQC_LANE
#undef LQC_ULANE
#undef LQC_LANES

void LQC_ISA(lqc_fixed_point)(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  run_program_narrow(program, pixels, scratch);
}

void LQC_ISA(lqc_fixed_point_wide)(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  run_program_wide(program, pixels, scratch);
}
