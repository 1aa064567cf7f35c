/* A plugin for qemu-aarch64 (user mode, 7.2) that estimates the cycles between two functions of a program on a core
 * with the properties that core_model.py names: issue, units, latencies, caches. It is a scoreboard, not a simulator:
 * it follows the instructions that really run, with their registers and addresses.
 *
 *   qemu-aarch64 -d plugin -plugin core_model.so,begin=ADDRESS,end=ADDRESS,table=FILE,core=NUMBERS program ...
 *
 * FILE has a line for each instruction, in the order of read_table(), as core_model.py writes it. Prints "cycles N
 * instructions N misses N mispredicted N". With profile=FILE it writes there, by address, how often an instruction ran
 * and by how many cycles the end came later with it. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface, version 1, that is used here. */
typedef uint64_t plugin_id;
typedef struct plugin_block plugin_block;
typedef struct plugin_instruction plugin_instruction;
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, plugin_block *));
extern void qemu_plugin_register_vcpu_insn_exec_cb(plugin_instruction *instruction, void (*executed)(unsigned, void *),
                                                   int flags, void *data);
extern void qemu_plugin_register_vcpu_mem_cb(plugin_instruction *instruction,
                                             void (*accessed)(unsigned, uint32_t, uint64_t, void *), int flags, int rw,
                                             void *data);
extern size_t qemu_plugin_tb_n_insns(const plugin_block *block);
extern plugin_instruction *qemu_plugin_tb_get_insn(const plugin_block *block, size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const plugin_instruction *instruction);
extern void qemu_plugin_outs(const char *text);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* ---- What is known of an instruction ----------------------------------------------------------------------------- */

typedef enum kind { INTEGER, VECTOR, VECTOR_ONE_PIPE, LOAD, STORE, BRANCH, KIND_COUNT } kind;
enum { REGISTERS = 65, MOST_REGISTERS = 8, LINE_BYTES = 64, MOST_LINES = 4 };

typedef struct instruction {
  uint64_t address;
  unsigned kind, units, latency, write_count, read_count;
  unsigned char writes[MOST_REGISTERS], reads[MOST_REGISTERS];
  bool wide;            /* a load of 128 bits, beside which no vector operation is issued */
  unsigned vector_part; /* out of order: vector operations that a load contains */
  int base, distance;   /* of a memory access: -1 or its only base register, and the bytes added to it */
  bool prefetch;
  /* prediction: of a branch, where it went last and a counter of two bits */
  uint64_t target;
  unsigned taken;
  uint64_t runs, cost; /* cycles by which the end came later with it */
} instruction;

static instruction *table;
static size_t table_count;

static instruction *find(uint64_t address) {
  size_t low = 0, high = table_count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (table[middle].address < address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < table_count && table[low].address == address ? &table[low] : NULL;
}

/* ---- The core ---------------------------------------------------------------------------------------------------- */

static struct core {
  unsigned out_of_order, width, vector_pipes, window, level_1_ways, level_2, memory, mispredicted;
} core;

typedef struct line {
  uint64_t number, ready, used;
} line;
enum { LEVEL_1_BYTES = 32 << 10, LEVEL_2_BYTES = 512 << 10, LEVEL_2_WAYS = 16, MOST_WAYS = 16 };
static line level_1[LEVEL_1_BYTES / LINE_BYTES], level_2[LEVEL_2_BYTES / LINE_BYTES];
static uint64_t uses, misses, wrong_branches, instruction_count;

/* When the line is there, of an access at `now`. Misses of the second level leave the memory one by one. */
static line *look_up(line *cache, size_t lines, unsigned ways, uint64_t number, bool *hit) {
  line *set = cache + number % (lines / ways) * ways, *oldest = set;
  for (unsigned w = 0; w < ways; ++w) {
    if (set[w].number == number + 1) {
      *hit = true;
      set[w].used = ++uses;
      return &set[w];
    }
    if (set[w].used < oldest->used) {
      oldest = &set[w];
    }
  }
  *hit = false;
  *oldest = (line){.number = number + 1, .used = ++uses};
  return oldest;
}

static uint64_t memory_free;

static uint64_t line_ready(uint64_t number, uint64_t now, bool counts) {
  bool hit;
  line *first = look_up(level_1, LEVEL_1_BYTES / LINE_BYTES, core.level_1_ways, number, &hit);
  if (hit) {
    return first->ready > now ? first->ready : now;
  }
  misses += counts;
  line *second = look_up(level_2, LEVEL_2_BYTES / LINE_BYTES, LEVEL_2_WAYS, number, &hit);
  if (!hit) {
    const uint64_t start = now > memory_free ? now : memory_free;
    memory_free = start + LINE_BYTES / 8;
    second->ready = start + core.memory;
  }
  first->ready = (second->ready > now ? second->ready : now) + core.level_2;
  return first->ready;
}

/* ---- Scoreboards ------------------------------------------------------------------------------------------------- */

static uint64_t ready[REGISTERS], now, last_cycle;
static unsigned issued, loads_now, vectors_now;
static uint64_t load_free, vector_free;

static uint64_t operands_ready(const instruction *i) {
  uint64_t at = 0;
  for (unsigned r = 0; r < i->read_count; ++r) {
    at = ready[i->reads[r]] > at ? ready[i->reads[r]] : at;
  }
  return at;
}

static uint64_t data_ready(const instruction *i, const uint64_t *lines, unsigned line_count, uint64_t at) {
  uint64_t done = at;
  for (unsigned l = 0; l < line_count; ++l) {
    const uint64_t there = line_ready(lines[l], at, i->kind == LOAD);
    done = there > done ? there : done;
  }
  return i->kind == LOAD && !i->prefetch ? done + i->latency : at + i->latency;
}

static void write_back(const instruction *i, uint64_t at) {
  for (unsigned r = 0; r < i->write_count; ++r) {
    /* an address that is moved on is ready earlier than what was loaded */
    ready[i->writes[r]] =
        r + 1 == i->write_count && i->write_count > 1 && i->kind >= LOAD && i->writes[r] < 32 && i->writes[0] >= 32
            ? (at < now + 1 ? at : now + 1)
            : at;
  }
  last_cycle = at > last_cycle ? at : last_cycle;
}

static void move_to(uint64_t cycle) {
  if (cycle > now) {
    now = cycle;
    issued = loads_now = vectors_now = 0;
  }
}

static void in_order(const instruction *i, const uint64_t *lines, unsigned line_count, bool wrong) {
  move_to(operands_ready(i));
  const bool vector = i->kind == VECTOR || i->kind == VECTOR_ONE_PIPE, memory = i->kind == LOAD || i->kind == STORE;
  while (issued >= core.width || (vector && (vectors_now >= core.vector_pipes || vector_free > now)) ||
         (memory && (loads_now >= 1 || load_free > now)) || (i->wide && vectors_now > 0)) {
    move_to(now + 1);
  }
  ++issued;
  vectors_now += vector;
  loads_now += memory;
  if (vector && i->units > 1) {
    vector_free = now + i->units;
  } else if (memory) {
    load_free = now + i->units;
    if (i->wide) {
      vector_free = now + i->units;
    }
  }
  write_back(i, data_ready(i, lines, line_count, now));
  if (wrong) {
    move_to(now + core.mispredicted);
  }
}

/* Cycles that a pipe is taken, modulo a number far above the window's. */
enum { RING = 1 << 16, PIPES = 7 };
static uint64_t taken[PIPES][RING];
static uint64_t retired[256];
static uint64_t fetch_from;

static uint64_t first_free(unsigned first, unsigned count, uint64_t at, unsigned units) {
  for (;; ++at) {
    for (unsigned p = first; p < first + count; ++p) {
      bool free = true;
      for (unsigned u = 0; u < units && free; ++u) {
        free = taken[p][(at + u) % RING] != at + u + 1;
      }
      if (free) {
        for (unsigned u = 0; u < units; ++u) {
          taken[p][(at + u) % RING] = at + u + 1;
        }
        return at;
      }
    }
  }
}

static void out_of_order(const instruction *i, const uint64_t *lines, unsigned line_count, bool wrong) {
  static uint64_t retire_at, retire_count;
  static const struct {
    unsigned first, count;
  } pipes[KIND_COUNT] = {{0, 2}, {2, 2}, {3, 1}, {4, 1}, {5, 1}, {6, 1}};
  uint64_t *slot = &retired[instruction_count % core.window];
  move_to(fetch_from);
  move_to(*slot);
  if (issued >= core.width) {
    move_to(now + 1);
  }
  ++issued;
  const uint64_t at = operands_ready(i), from = at > now + 1 ? at : now + 1;
  const uint64_t start = first_free(pipes[i->kind].first, pipes[i->kind].count, from, i->units);
  for (unsigned v = 0; v < i->vector_part; ++v) {
    first_free(pipes[VECTOR].first, pipes[VECTOR].count, start + 1, 1);
  }
  const uint64_t done = data_ready(i, lines, line_count, start);
  for (unsigned r = 0; r < i->write_count; ++r) {
    ready[i->writes[r]] = done;
  }
  if (i->kind >= LOAD && i->kind <= STORE && i->write_count > 1 && i->writes[i->write_count - 1] < 32 &&
      i->writes[0] >= 32) {
    ready[i->writes[i->write_count - 1]] = start + 1;
  }
  if (done > retire_at) {
    retire_at = done;
    retire_count = 0;
  } else if (++retire_count == core.width) {
    ++retire_at;
    retire_count = 0;
  }
  *slot = retire_at;
  last_cycle = retire_at > last_cycle ? retire_at : last_cycle;
  if (wrong) {
    fetch_from = done + core.mispredicted;
  }
}

/* ---- The program ------------------------------------------------------------------------------------------------- */

static const char *profile_path;
static bool between;
static uint64_t begin_address, end_address;
static instruction *waiting; /* the last one: what it accesses is known when the next begins */
static uint64_t lines[MOST_LINES];
static unsigned line_count;
static uint64_t lowest = UINT64_MAX; /* address that it accesses */

static uint64_t bases[32];

static void issue(uint64_t next) {
  instruction *i = waiting;
  bool wrong = false;
  if (i->prefetch && i->base >= 0) { /* the emulator does not say: from the last access by the same register */
    lines[line_count++] = (bases[i->base] + (uint64_t)(int64_t)i->distance) / LINE_BYTES;
  } else if (i->base >= 0 && line_count > 0) {
    bases[i->base] = lowest - (uint64_t)(int64_t)i->distance;
  }
  lowest = UINT64_MAX;
  if (i->kind == BRANCH) {
    const bool taken_now = next != i->address + 4;
    wrong = taken_now != (i->taken >= 2) || (taken_now && next != i->target);
    i->taken = taken_now ? (i->taken < 3 ? i->taken + 1 : 3) : (i->taken > 0 ? i->taken - 1 : 0);
    i->target = taken_now ? next : i->target;
    wrong_branches += wrong;
  }
  const uint64_t before = core.out_of_order ? last_cycle : now;
  (core.out_of_order ? out_of_order : in_order)(i, lines, line_count, wrong);
  if (between) {
    i->cost += (core.out_of_order ? last_cycle : now) - before;
    ++i->runs;
  }
  ++instruction_count;
  line_count = 0;
}

static void write_profile(void) {
  FILE *file = profile_path ? fopen(profile_path, "w") : NULL;
  for (size_t n = 0; file && n < table_count; ++n) {
    fprintf(file, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", table[n].address, table[n].runs, table[n].cost);
  }
  if (file) {
    fclose(file);
  }
}

static void on_instruction(unsigned cpu, void *data) {
  instruction *i = data;
  static uint64_t at_begin, count_at_begin;
  (void)cpu;
  if (waiting) {
    issue(i->address);
  }
  waiting = i;
  if (i->address == begin_address) {
    at_begin = last_cycle;
    count_at_begin = instruction_count;
    misses = wrong_branches = 0;
    between = true;
  } else if (i->address == end_address && between) {
    between = false;
    char text[160];
    snprintf(text, sizeof(text),
             "cycles %" PRIu64 " instructions %" PRIu64 " misses %" PRIu64 " mispredicted %" PRIu64 "\n",
             last_cycle - at_begin, instruction_count - count_at_begin, misses, wrong_branches);
    qemu_plugin_outs(text);
    write_profile();
  }
}

static void on_access(unsigned cpu, uint32_t info, uint64_t address, void *data) {
  (void)cpu;
  (void)info;
  (void)data;
  const uint64_t number = address / LINE_BYTES;
  lowest = address < lowest ? address : lowest;
  for (unsigned l = 0; l < line_count; ++l) {
    if (lines[l] == number) {
      return;
    }
  }
  if (line_count < MOST_LINES) {
    lines[line_count++] = number;
  }
}

static void on_translation(plugin_id id, plugin_block *block) {
  (void)id;
  for (size_t n = 0; n < qemu_plugin_tb_n_insns(block); ++n) {
    plugin_instruction *instruction = qemu_plugin_tb_get_insn(block, n);
    void *known = find(qemu_plugin_insn_vaddr(instruction));
    if (known) {
      qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_instruction, NO_REGISTERS, known);
      qemu_plugin_register_vcpu_mem_cb(instruction, on_access, NO_REGISTERS, READS_AND_WRITES, known);
    }
  }
}

static bool read_registers(FILE *file, unsigned *count, unsigned char *registers) {
  unsigned value, n = 0;
  bool good = fscanf(file, "%u", count) == 1 && *count <= MOST_REGISTERS;
  for (; good && n < *count && fscanf(file, "%u", &value) == 1 && value < REGISTERS; ++n) {
    registers[n] = (unsigned char)value;
  }
  return good && n == *count;
}

static void read_table(const char *path) {
  FILE *file = fopen(path, "r");
  instruction i = {0};
  unsigned wide, prefetch;
  while (file &&
         fscanf(file, "%" SCNx64 " %u %u %u %u %u %u %d %d", &i.address, &i.kind, &i.units, &i.latency, &wide,
                &i.vector_part, &prefetch, &i.base, &i.distance) == 9 &&
         read_registers(file, &i.write_count, i.writes) && read_registers(file, &i.read_count, i.reads)) {
    i.wide = wide != 0;
    i.prefetch = prefetch != 0;
    table = realloc(table, (table_count + 1) * sizeof(*table));
    table[table_count++] = i;
  }
  if (file) {
    fclose(file);
  }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv);
EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  int core_known = 0;
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "begin=", 6) == 0) {
      begin_address = strtoull(argv[i] + 6, NULL, 0);
    } else if (strncmp(argv[i], "end=", 4) == 0) {
      end_address = strtoull(argv[i] + 4, NULL, 0);
    } else if (strncmp(argv[i], "table=", 6) == 0) {
      read_table(argv[i] + 6);
    } else if (strncmp(argv[i], "profile=", 8) == 0) {
      profile_path = strdup(argv[i] + 8);
    } else if (strncmp(argv[i], "core=", 5) == 0) {
      core_known = sscanf(argv[i] + 5, "%u:%u:%u:%u:%u:%u:%u:%u", &core.out_of_order, &core.width, &core.vector_pipes,
                          &core.window, &core.level_1_ways, &core.level_2, &core.memory, &core.mispredicted) == 8;
    }
  }
  if (begin_address == 0 || end_address == 0 || table_count == 0 || !core_known) {
    fprintf(stderr, "core_model: begin=, end=, table= and core= are needed; %zu instructions read\n", table_count);
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  return 0;
}
