/* A plugin for qemu-aarch64 (user mode, 7.2) that counts the instructions that run between two functions of a program.
 *
 *   qemu-aarch64 -d plugin -plugin count_instructions.so,begin=0x4012f0,end=0x4012f4 program ...
 *
 * begin and end are the addresses of the functions. Prints "instructions ALL vector VECTOR" at the end. A vector
 * instruction is one of the group "data processing: scalar floating point and advanced SIMD" of the A64 encoding (bits
 * 28 to 25 are x111): arithmetic and moves of vector registers; loads and stores are not among them.
 *
 * Counts are kept by translation block, whose instructions all run once it is entered: the program must not fault. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface, version 1, that is used here. */
typedef uint64_t plugin_id;
typedef struct plugin_block plugin_block;
typedef struct plugin_instruction plugin_instruction;
enum { INLINE_ADD_U64 = 0, NO_REGISTERS = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, plugin_block *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(plugin_block *block, int op, void *counter, uint64_t add);
extern void qemu_plugin_register_vcpu_insn_exec_cb(plugin_instruction *instruction, void (*executed)(unsigned, void *),
                                                   int flags, void *data);
extern void qemu_plugin_register_atexit_cb(plugin_id id, void (*at_exit)(plugin_id, void *), void *data);
extern size_t qemu_plugin_tb_n_insns(const plugin_block *block);
extern plugin_instruction *qemu_plugin_tb_get_insn(const plugin_block *block, size_t index);
extern const void *qemu_plugin_insn_data(const plugin_instruction *instruction);
extern uint64_t qemu_plugin_insn_vaddr(const plugin_instruction *instruction);
extern void qemu_plugin_outs(const char *text);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

typedef struct counts {
  uint64_t all, vector;
} counts;

static counts running, at_begin, between;
static uint64_t begin_address, end_address;
static bool ended;

static void on_begin(unsigned cpu, void *data) {
  (void)cpu;
  (void)data;
  at_begin = running;
}

static void on_end(unsigned cpu, void *data) {
  (void)cpu;
  (void)data;
  between.all += running.all - at_begin.all;
  between.vector += running.vector - at_begin.vector;
  ended = true;
}

static void on_translation(plugin_id id, plugin_block *block) {
  const size_t count = qemu_plugin_tb_n_insns(block);
  uint64_t vector = 0;
  (void)id;
  for (size_t i = 0; i < count; ++i) {
    plugin_instruction *instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof(word));
    vector += (word >> 25 & 7) == 7;
    if (qemu_plugin_insn_vaddr(instruction) == begin_address) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_begin, NO_REGISTERS, NULL);
    } else if (qemu_plugin_insn_vaddr(instruction) == end_address) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_end, NO_REGISTERS, NULL);
    }
  }
  qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &running.all, count);
  if (vector > 0) {
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &running.vector, vector);
  }
}

static void on_exit_of_program(plugin_id id, void *data) {
  char line[96];
  (void)id;
  (void)data;
  snprintf(line, sizeof(line), "instructions %" PRIu64 " vector %" PRIu64 "\n", between.all, between.vector);
  qemu_plugin_outs(ended ? line : "instructions: the program never came to both functions\n");
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "begin=", 6) == 0) {
      begin_address = strtoull(argv[i] + 6, NULL, 0);
    } else if (strncmp(argv[i], "end=", 4) == 0) {
      end_address = strtoull(argv[i] + 4, NULL, 0);
    }
  }
  if (begin_address == 0 || end_address == 0) {
    fprintf(stderr, "count_instructions: begin=ADDRESS and end=ADDRESS are needed\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
