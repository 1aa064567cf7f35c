/* Fixed point: usual programs have loops of their own, others take those that the compiler makes vectors of. */
#define LQC_ISA(name) name##_loops_avx2
#include "fixed_point_template.h"

void lqc_fixed_point_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  if (!lqc_fixed_point_usual_avx2(program, pixels)) {
    lqc_fixed_point_loops_avx2(program, pixels, scratch);
  }
}

void lqc_fixed_point_wide_avx2(const lqc_lane_program *program, const lqc_lane_pixels *pixels, void *scratch) {
  if (!lqc_fixed_point_usual_wide_avx2(program, pixels)) {
    lqc_fixed_point_wide_loops_avx2(program, pixels, scratch);
  }
}
