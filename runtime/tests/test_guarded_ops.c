/* Every op of the sample networks, for every instruction set, with its tensors beside pages that may not be touched.
 * The tests of random ops (test_bconv2d, test_fixed_point_convs, test_integer_ops, test_ops, test_plain_ops) do the
 * same. Then every constant as the last thing in its file, beside such a page. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "guarded_ops.h"

#include "hostile.h"
#include "schema_walk.h"

/* The file with a copy of one constant's data at its end, which it names in place of the old one. The copy starts on
 * 16 bytes, as the format wants, so that up to 15 bytes lie between its end and the page, and none for the address
 * sanitizer. */
static built_file with_data_last(const built_file *file, uint32_t offset) {
  uint32_t place, count;
  memcpy(&place, file->data + offset, 4);
  memcpy(&count, file->data + offset + place, 4);
  size_t copy = (file->size + 4 + 15) / 16 * 16;
  built_file moved = {calloc(1, copy + count), copy + count};
  memcpy(moved.data, file->data, file->size);
  memcpy(moved.data + copy - 4, file->data + offset + place, 4 + (size_t)count);
  place = (uint32_t)copy - 4 - offset;
  memcpy(moved.data + offset, &place, 4);
  return moved;
}

static void check_constants(const built_file *file) {
  static site sites[8192];
  size_t count = walk_file(file->data, file->size, sites, 8192);
  uint32_t constants = 0;
  for (int isa = LQC_ISA_SCALAR; isa < LQC_ISA_COUNT; ++isa) {
    const lqc_options options = {.isa = (lqc_isa)isa, .keep_tensors = 1};
    if (!lqc_isa_available((lqc_isa)isa)) {
      continue;
    }
    uint64_t expected = use_file_as(file->data, file->size, &options, 5).digest;
    for (size_t i = 0; i < count; ++i) {
      if (sites[i].kind == SITE_OFFSET && !strcmp(sites[i].table, "Constant") && !strcmp(sites[i].field, "data")) {
        built_file moved = with_data_last(file, sites[i].position);
        hostile_use used = use_file_as(moved.data, moved.size, &options, 5);
        EXPECT(used.ran && used.digest == expected, "constant %u last: status %d", constants, (int)used.status);
        free(moved.data);
        ++constants;
      }
    }
  }
  EXPECT(constants >= 5, "%u constants", constants);
}

int main(void) {
  static void (*const networks[])(built_model *m, uint64_t seed) = {sample_network, integer_network, plain_network};
  for (size_t n = 0; n < sizeof(networks) / sizeof(networks[0]); ++n) {
    built_model m;
    networks[n](&m, 7);
    test_session s = open_session(&m, NULL);
    check_guarded_ops(&s.model, 5);
    close_session(&s);
    built_file file = build_file(&m);
    check_constants(&file);
    free(file.data);
    model_end(&m);
  }
  return 0;
}
