/* Every op of the sample networks, for every instruction set, with its tensors beside pages that may not be touched.
 * The tests of random ops (test_bconv2d, test_fixed_point_convs, test_integer_ops, test_ops, test_plain_ops) do the
 * same. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "guarded_ops.h"

int main(void) {
  static void (*const networks[])(built_model *m, uint64_t seed) = {sample_network, integer_network, plain_network};
  for (size_t n = 0; n < sizeof(networks) / sizeof(networks[0]); ++n) {
    built_model m;
    networks[n](&m, 7);
    test_session s = open_session(&m, NULL);
    check_guarded_ops(&s.model, 5);
    close_session(&s);
    model_end(&m);
  }
  return 0;
}
