/* larq_clip.h - runs binary neural networks converted by larq_clip.
 *
 * The library executes a model file (.lcb) inside memory that the caller owns. It decides nothing: every number is
 * in the file, and the result equals the trained Keras model's integer path bit for bit, on every instruction set
 * and with any number of threads.
 *
 *     lqc_model model;                                         1. check the file, wherever its bytes are
 *     lqc_model_load(&model, data, size, &error);
 *     size_t bytes;                                            2. ask how much memory a session takes
 *     lqc_session_size(&model, NULL, &bytes, &error);
 *     void *memory = aligned_alloc(LQC_ALIGNMENT, bytes);      3. prepare it there
 *     lqc_session *session;
 *     lqc_session_init(&session, &model, NULL, memory, bytes, &error);
 *     memcpy(lqc_session_input(session, 0), image, ...);       4. write one image, run, read the result
 *     lqc_session_run(session, &error);
 *     const float *scores = lqc_session_output(session, 0);
 *     lqc_session_destroy(session);                            5. end its threads; then free the memory
 *
 * Promises. No function prints, aborts or calls malloc (where init starts threads, the C library may). There are no
 * mutable globals, save one atomic integer that remembers which of two NEON arrangements was faster on an ARM core that
 * does not tell what it is: sessions are independent, and many may share one loaded model from different threads, each
 * session being used by one thread at a time. Loading checks every offset of the file and init checks every shape, so a
 * damaged or hostile file gives a status and a message, never an access outside the given memory. lqc_session_run
 * allocates nothing, and takes no locks when it has one thread.
 *
 * Time. Loading and init take time in proportion to the bytes of the file and of the session, whatever the file holds.
 * A run takes what the shapes in the file ask for, which a hostile file of a few bytes can make very long: whoever runs
 * files of strangers should be able to end the process.
 *
 * Stack. Every call needs at most 64 KiB of stack, whatever the file holds: no function calls itself, and no frame has
 * a size that is not known when it is compiled.
 *
 * Every function returns LQC_OK or says what is wrong; with `error` not NULL, error->message names the op, tensor or
 * field, the value received and what is accepted. On failure no output argument is changed.
 */
#ifndef LARQ_CLIP_H
#define LARQ_CLIP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#  define LQC_API __declspec(dllexport)
#elif defined(__GNUC__)
#  define LQC_API __attribute__((visibility("default")))
#else
#  define LQC_API
#endif

#define LQC_VERSION "0.1.0"

/* Alignment, in bytes, of session memory and of every tensor in it. */
#define LQC_ALIGNMENT 64
/* Alignment, in bytes, that the bytes of a model file need. */
#define LQC_FILE_ALIGNMENT 16
/* A tensor has at most this many axes (batch not counted). */
#define LQC_MAX_RANK 3

/* ---- Status -------------------------------------------------------------------------------------------------- */

/* X(name, message) */
#define LQC_STATUS_LIST(X)                                                           \
  X(OK, "ok")                                                                        \
  X(ERROR_NULL, "an argument that must not be NULL is NULL")                         \
  X(ERROR_NOT_A_MODEL, "not a larq_clip model file")                                 \
  X(ERROR_TRUNCATED, "the model file is cut off or points outside itself")           \
  X(ERROR_VERSION, "the model file has a format version this library does not read") \
  X(ERROR_MALFORMED, "the model file contradicts itself")                            \
  X(ERROR_UNSUPPORTED, "the model file asks for something this library does not do") \
  X(ERROR_ALIGNMENT, "memory is not aligned as required")                            \
  X(ERROR_ARENA_TOO_SMALL, "the memory given to the session is too small")           \
  X(ERROR_OPTION, "an option has a value that is not accepted")                      \
  X(ERROR_NOT_FINITE, "the input holds a NaN or an infinity")                        \
  X(ERROR_THREADS, "worker threads could not be started")                            \
  X(ERROR_INPUT, "a bit input has bits set above its last channel")

typedef enum lqc_status {
#define LQC_STATUS_ENUM(name, message) LQC_##name,
  LQC_STATUS_LIST(LQC_STATUS_ENUM)
#undef LQC_STATUS_ENUM
      LQC_STATUS_COUNT
} lqc_status;

typedef struct lqc_error {
  lqc_status status;
  char message[244]; /* one line, always terminated */
} lqc_error;

/* The general message of a status; never NULL. */
LQC_API const char *lqc_status_message(lqc_status status);

/* LQC_VERSION of the library that is linked. */
LQC_API const char *lqc_version(void);

/* ---- Instruction sets ---------------------------------------------------------------------------------------- */

typedef enum lqc_isa {
  LQC_ISA_AUTO = 0, /* the best that this processor has */
  LQC_ISA_SCALAR,   /* portable C, 64-bit words */
  LQC_ISA_NEON,     /* aarch64; armv7 where the processor has it */
  LQC_ISA_AVX2,
  LQC_ISA_AVX512,        /* F, BW, VL, DQ, VPOPCNTDQ, BITALG and VNNI, and BMI2 */
  LQC_ISA_NEON_IN_ORDER, /* aarch64, the same results, arranged for cores like the Cortex-A53: AUTO knows them */
  LQC_ISA_COUNT
} lqc_isa;

/* "auto", "scalar", "neon", "avx2", "avx512", "neon_in_order"; NULL for a value out of range. */
LQC_API const char *lqc_isa_name(lqc_isa isa);
/* 1 where this processor and this build can run it, else 0. */
LQC_API int lqc_isa_available(lqc_isa isa);

/* ---- Model --------------------------------------------------------------------------------------------------- */

/* A checked view of a model file. It owns nothing; the file's bytes must outlive it, unchanged. */
typedef struct lqc_model {
  uint64_t opaque[16];
} lqc_model;

/* Checks the structure of the file in data[0 .. size): every offset, vector, string, enum and index.
 * data must be aligned to LQC_FILE_ALIGNMENT. */
LQC_API lqc_status lqc_model_load(lqc_model *model, const void *data, size_t size, lqc_error *error);

typedef enum lqc_dtype {
  LQC_BIT = 0,
  LQC_INT8,
  LQC_INT16,
  LQC_INT32,
  LQC_FLOAT32,
  LQC_INT64, /* of constants inside a file; no tensor has it */
  LQC_DTYPE_COUNT
} lqc_dtype;

typedef struct lqc_tensor_info {
  const char *name; /* inside the file, terminated */
  lqc_dtype dtype;
  uint32_t rank;
  uint32_t shape[LQC_MAX_RANK]; /* without the batch: height, width, channels; length, channels; or channels */
  size_t bytes;                 /* of one image; bits count as 64-bit words, see the packing in larq_clip.fbs */
} lqc_tensor_info;

LQC_API size_t lqc_model_input_count(const lqc_model *model);
LQC_API size_t lqc_model_output_count(const lqc_model *model);
LQC_API size_t lqc_model_tensor_count(const lqc_model *model);
LQC_API size_t lqc_model_op_count(const lqc_model *model);
/* Tensor index of an input or output; SIZE_MAX where there is none. */
LQC_API size_t lqc_model_input_tensor(const lqc_model *model, size_t input);
LQC_API size_t lqc_model_output_tensor(const lqc_model *model, size_t output);
LQC_API lqc_status lqc_model_tensor_info(const lqc_model *model, size_t tensor, lqc_tensor_info *info);

/* ---- Session ------------------------------------------------------------------------------------------------- */

typedef struct lqc_session lqc_session;

typedef struct lqc_options {
  uint32_t threads; /* 0 and 1: the calling thread alone; at most LQC_MAX_THREADS, 1 in a build without threads */
  lqc_isa isa;      /* LQC_ISA_AUTO, or one for which lqc_isa_available() */
  int keep_tensors; /* not 0: every tensor keeps a place of its own, so that lqc_session_tensor() can be read
                       after a run; takes more memory */
  int profile;      /* not 0: measure the time of every op */
} lqc_options;

#define LQC_MAX_THREADS 64

/* Checks the model's meaning (shapes, dtypes, ranges, the memory plan) and gives the bytes that a session needs.
 * options may be NULL: one thread, best instruction set. */
LQC_API lqc_status lqc_session_size(const lqc_model *model, const lqc_options *options, size_t *bytes,
                                    lqc_error *error);

/* Prepares a session in memory[0 .. bytes), aligned to LQC_ALIGNMENT. The memory stays the caller's and must live,
 * untouched, until lqc_session_destroy(). The model must live as long. */
LQC_API lqc_status lqc_session_init(lqc_session **session, const lqc_model *model, const lqc_options *options,
                                    void *memory, size_t bytes, lqc_error *error);

/* Where to write an input (before each run: a run may overwrite it) and read an output (before the next input is
 * written: it may lie in the same place). NULL for an index out of range. Layout: row-major, see
 * lqc_model_tensor_info(). */
LQC_API void *lqc_session_input(lqc_session *session, size_t input);
LQC_API const void *lqc_session_output(const lqc_session *session, size_t output);

/* Executes the model on one image. Float inputs must be finite (LQC_ERROR_NOT_FINITE otherwise), and the bits above the
 * last channel of bit inputs 0 (LQC_ERROR_INPUT). After an error the session can be used again. */
LQC_API lqc_status lqc_session_run(lqc_session *session, lqc_error *error);

/* Any tensor, after a run, with options.keep_tensors; NULL otherwise or out of range. */
LQC_API const void *lqc_session_tensor(const lqc_session *session, size_t tensor);

/* What executes an op. */
typedef struct lqc_op_info {
  const char *name;     /* of the Keras layer */
  const char *type;     /* as in larq_clip.fbs, "BinaryConv2D" */
  const char *kernel;   /* "bconv2d_avx512" */
  uint64_t binary_macs; /* binary multiply-accumulates of one image */
  uint64_t int8_macs;
  uint64_t float_macs;
  uint64_t nanoseconds; /* of the last run; 0 without options.profile */
} lqc_op_info;

LQC_API lqc_status lqc_session_op_info(const lqc_session *session, size_t op, lqc_op_info *info);

/* Instruction set in use. */
LQC_API lqc_isa lqc_session_isa(const lqc_session *session);

/* Ends the session's threads; the session is then no longer one. NULL is allowed. */
LQC_API void lqc_session_destroy(lqc_session *session);

#ifdef __cplusplus
}
#endif

#endif /* LARQ_CLIP_H */
