/* A plugin for QEMU (user mode, 7.2; aarch64, arm and x86_64) that counts the instructions that run, and how many of
 * them are arithmetic, comparisons or moves of vectors. Prints a line "block ADDRESS NAME ALL VECTOR" for every
 * translation block at the end, NAME being its function; scalar_share.py runs it.
 *
 *   qemu-arm -d plugin -plugin function_shares.so program ...
 *
 * Counts are kept by translation block, whose instructions all run once it is entered: the program must have one thread
 * and not fault. */
#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface, version 1, that is used here. */
typedef uint64_t plugin_id;
typedef struct plugin_block plugin_block;
typedef struct plugin_instruction plugin_instruction;
typedef struct plugin_info {
  const char *target_name;
} plugin_info;
enum { INLINE_ADD_U64 = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, plugin_block *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(plugin_block *block, int op, void *counter, uint64_t add);
extern void qemu_plugin_register_atexit_cb(plugin_id id, void (*at_exit)(plugin_id, void *), void *data);
extern size_t qemu_plugin_tb_n_insns(const plugin_block *block);
extern plugin_instruction *qemu_plugin_tb_get_insn(const plugin_block *block, size_t index);
extern const void *qemu_plugin_insn_data(const plugin_instruction *instruction);
extern uint64_t qemu_plugin_insn_vaddr(const plugin_instruction *instruction);
extern char *qemu_plugin_insn_disas(const plugin_instruction *instruction);
extern const char *qemu_plugin_insn_symbol(const plugin_instruction *instruction);
extern void qemu_plugin_outs(const char *text);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* Of a translation block. */
typedef struct counts {
  uint64_t address, all, vector;
  struct counts *next;
  char name[64]; /* of the function, as the emulator knows it */
} counts;

static counts *blocks;
static enum { A64, A32, X86 } target;

static bool starts_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The first operand is a register of this kind: a letter and a number. */
static bool first_is(const char *operands, char kind) {
  return operands[0] == kind && isdigit((unsigned char)operands[1]);
}

/* Whether an instruction works on vectors and is not a load or a store. Of A64 it is the encoding that says so, as
 * disassemblers of the emulator's age do not know all instructions. */
static bool is_vector(const plugin_instruction *instruction, const char *text) {
  char name[32] = "";
  size_t n = 0;
  if (target == A64) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof(word));
    return (word >> 24 & 0x9e) == 0x0e;
  }
  for (; *text && !isspace((unsigned char)*text) && n + 1 < sizeof(name); ++text) {
    name[n++] = *text;
  }
  while (isspace((unsigned char)*text)) {
    ++text;
  }
  if (target == X86) {
    const bool vector = strstr(text, "ymm") || strstr(text, "zmm") || strstr(text, "xmm");
    const bool scalar = n > 2 && name[n - 2] == 's' && (name[n - 1] == 's' || name[n - 1] == 'd');
    return vector && !scalar && (strstr(name, "mov") == NULL || strstr(name, "movmsk"));
  }
  /* s registers and ".f64" are scalar. */
  return name[0] == 'v' && (first_is(text, 'q') || first_is(text, 'd')) && !strstr(name, ".f64") &&
         !starts_with(name, "vld") && !starts_with(name, "vst") && !starts_with(name, "vpush") &&
         !starts_with(name, "vpop");
}

static void on_translation(plugin_id id, plugin_block *block) {
  const size_t count = qemu_plugin_tb_n_insns(block);
  const plugin_instruction *first = qemu_plugin_tb_get_insn(block, 0);
  const char *name = qemu_plugin_insn_symbol(first);
  counts *of_block = calloc(1, sizeof(*of_block));
  uint64_t vector = 0;
  (void)id;
  if (of_block == NULL) {
    abort();
  }
  for (size_t i = 0; i < count; ++i) {
    char *text = qemu_plugin_insn_disas(qemu_plugin_tb_get_insn(block, i));
    vector += is_vector(qemu_plugin_tb_get_insn(block, i), text);
    free(text);
  }
  of_block->address = qemu_plugin_insn_vaddr(first);
  snprintf(of_block->name, sizeof(of_block->name), "%s", name && *name ? name : "?");
  of_block->next = blocks;
  blocks = of_block;
  qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &of_block->all, count);
  if (vector > 0) {
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &of_block->vector, vector);
  }
}

static void on_exit_of_program(plugin_id id, void *data) {
  char line[160];
  (void)id;
  (void)data;
  for (const counts *b = blocks; b; b = b->next) {
    snprintf(line, sizeof(line), "block %" PRIx64 " %s %" PRIu64 " %" PRIu64 "\n", b->address, b->name, b->all,
             b->vector);
    qemu_plugin_outs(line);
  }
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv);
EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv) {
  (void)argc;
  (void)argv;
  target = starts_with(info->target_name, "x86") ? X86 : strcmp(info->target_name, "arm") == 0 ? A32 : A64;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
