/* Halfstep's C API: check and compile ONNX models for training in mixed precision, train, evaluate and predict with
 * compiled steps.
 *
 * Two libraries, one getter each. libhalfstep-runtime runs compiled steps and needs neither LLVM nor ONNX;
 * libhalfstep-compiler makes them. With a getter of its own, a program that was not linked with the compiler cannot ask
 * it for anything: the linker says so, not a status on a device. Both give tables of functions that only grow at their
 * end: a program built with this header runs with every later library.
 *
 * Status: every function that can fail returns a halfstep_status*. NULL is success, all else is the caller's and goes
 * back with release_status. No exception leaves a function. A NULL handle, pointer or text where none is allowed is
 * HALFSTEP_INVALID_ARGUMENT. Functions that fail have changed nothing, unless they say otherwise.
 *
 * Ownership: what is passed in stays the caller's and is read only during the call. Handles are the caller's and go
 * back with their release function, which takes NULL too. Pointers inside a handle live as long as the handle.
 *
 * Threads: functions may be called from any thread. A step is used by one thread at a time; different steps may be used
 * at once. Statuses, lists and tables are read by any number of threads at once.
 *
 * On CUDA a function makes its step's device current and leaves the thread's as it was.
 *
 * Texts are UTF-8 and end with 0. Shapes are in elements, dense and row-major, the batch first.
 *
 * Not yet: learning rate schedules (set_learning_rate takes the rate of each step), token files, gradients as an
 * output. */
#ifndef HALFSTEP_HALFSTEP_H_
#define HALFSTEP_HALFSTEP_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HALFSTEP_API_VERSION 2 /* 2: status_hint and what follows it */
/* What to tell a user when a getter returns NULL. */
#define HALFSTEP_API_MISSING \
  "the installed Halfstep is older than this program: it does not have the API version asked for; install a newer one"

typedef int32_t halfstep_code;
enum {
  HALFSTEP_OK = 0,
  HALFSTEP_INVALID_ARGUMENT = 1, /* of a call: NULL, a wrong name, type, shape or size, a call out of order */
  HALFSTEP_ERROR = 2, /* a model, file, option or machine is at fault; the message says which and what to do */
  HALFSTEP_OUT_OF_MEMORY = 3,
  HALFSTEP_INTERNAL_ERROR = 4 /* a bug of Halfstep; please report the message */
};

typedef int32_t halfstep_dtype;
enum {
  HALFSTEP_NO_DTYPE = 0,
  HALFSTEP_F16 = 1,
  HALFSTEP_BF16 = 2,
  HALFSTEP_F32 = 3,
  HALFSTEP_F64 = 4,
  HALFSTEP_U8 = 5,
  HALFSTEP_I8 = 6,
  HALFSTEP_I32 = 7,
  HALFSTEP_I64 = 8,
  HALFSTEP_BOOL = 9 /* one byte, 0 or 1 */
};

/* What a step can run, for value_count and value_at. */
typedef int32_t halfstep_program;
enum { HALFSTEP_TRAIN = 0, HALFSTEP_EVALUATE = 1, HALFSTEP_PREDICT = 2 };
typedef int32_t halfstep_direction;
enum { HALFSTEP_INPUT = 0, HALFSTEP_OUTPUT = 1 };

typedef struct halfstep_status halfstep_status;
typedef struct halfstep_strings halfstep_strings;     /* a list of texts */
typedef struct halfstep_precision halfstep_precision; /* a table of halfstep_precision_row */
typedef struct halfstep_step halfstep_step;           /* a compiled step on its device, with its weights and state */

/* The structs below keep their layout; more is told by new functions. */
typedef struct halfstep_option {
  const char* key;
  const char* value;
} halfstep_option;

/* A tensor in the caller's host memory that a step reads. */
typedef struct halfstep_input {
  const char* name;
  halfstep_dtype dtype;
  size_t rank;
  const int64_t* shape; /* rank values; may be NULL where rank is 0 */
  const void* data;     /* all elements, aligned as their type */
} halfstep_input;

/* A tensor in the caller's host memory that a step writes. */
typedef struct halfstep_output {
  const char* name;
  halfstep_dtype dtype;
  void* data;
  size_t bytes; /* of data: exactly the output's */
} halfstep_output;

/* Where a tensor lies, in DLPack's numbers. */
typedef int32_t halfstep_device;
enum { HALFSTEP_CPU = 1, HALFSTEP_CUDA = 2, HALFSTEP_CUDA_HOST = 3, HALFSTEP_CUDA_MANAGED = 13 };

/* A tensor of the caller's that a step reads or writes, in host memory or in that of the step's GPU. */
typedef struct halfstep_tensor {
  const char* name;
  halfstep_dtype dtype;
  size_t rank;
  const int64_t* shape;   /* rank values; may be NULL where rank is 0 */
  const int64_t* strides; /* in elements; NULL: dense. Others than those of a dense tensor are refused */
  void* data;             /* written only where it is an output */
  halfstep_device device;
  int32_t device_index; /* which GPU */
} halfstep_tensor;

typedef struct halfstep_value {
  const char* name;
  halfstep_dtype dtype;
  size_t rank;
  const int64_t* shape;
} halfstep_value;

/* One weight in the flat buffer of read_parameters, in the layout of its ONNX initializer. */
typedef struct halfstep_parameter {
  const char* name; /* the ONNX initializer */
  size_t rank;
  const int64_t* shape;
  size_t offset;     /* in floats */
  size_t elements;   /* floats */
  int32_t trainable; /* 0: the optimizer does not change it (running statistics, frozen weights) */
} halfstep_parameter;

/* One of several losses. */
typedef struct halfstep_loss {
  const char* name;
  const char* labels; /* the input of its labels or targets; "": the model computes it */
  double weight;      /* in the sum that is minimised; 0: it is only measured */
} halfstep_loss;

/* A dynamic loss scale as torch.amp.GradScaler.state_dict() tells it, key by key. */
typedef struct halfstep_grad_scaler {
  double scale, growth_factor, backoff_factor;
  int64_t growth_interval;
  int64_t growth_tracker; /* steps without overflow since the scale last moved */
} halfstep_grad_scaler;

/* One of a step whose losses have a scale each (recipe key loss_scales). */
typedef struct halfstep_loss_grad_scaler {
  const char* loss; /* its name; "": the scale is that of all */
  halfstep_grad_scaler state;
} halfstep_loss_grad_scaler;

/* The precision of one node of the model. */
typedef struct halfstep_precision_row {
  const char* node;           /* its name in the ONNX file */
  const char* op;             /* the ONNX operator, or what Halfstep added: "preprocessing", the loss */
  halfstep_dtype operand;     /* as read; HALFSTEP_NO_DTYPE, and the result too: no output needs the node */
  halfstep_dtype accumulator; /* HALFSTEP_NO_DTYPE: it computes nothing */
  halfstep_dtype result;
  const char* reason; /* "contraction", "follows 'fc1'" */
} halfstep_precision_row;

typedef struct halfstep_api {
  /* The library's version: "0.1.0". */
  const char* (*version)(void);

  /* Of a status. HALFSTEP_OK, "" and "" for NULL. The message may have several lines, one for each problem. The node is
   * the ONNX node at fault, "" where none is. */
  halfstep_code (*status_code)(const halfstep_status* status);
  const char* (*status_message)(const halfstep_status* status);
  const char* (*status_node)(const halfstep_status* status);
  void (*release_status)(halfstep_status* status);

  /* Of a list. 0 for NULL; NULL beyond the end. */
  size_t (*strings_count)(const halfstep_strings* strings);
  const char* (*strings_at)(const halfstep_strings* strings, size_t index);
  void (*release_strings)(halfstep_strings* strings);

  /* Loads a directory that compile_model or `halfstep compile` wrote. It holds native code: load none that you would
   * not run. Options, each at most once: "device" cpu, cuda or auto (default: auto, the device it was compiled for;
   * another is an error), "threads" of the CPU (0: all that may be used), "seed" of the graph's random numbers
   * (default: the recipe's), "tf32" true or false, "autotune" (algorithms timed per shape on CUDA), "device_index" of
   * the GPU (default: 0), "trust" a file with a public key (PEM, Ed25519) that must have signed the step; without it a
   * step that other users may write is an error. Release with release_step. */
  halfstep_status* (*load_step)(const char* directory, const halfstep_option* options, size_t option_count,
                                halfstep_step** step);
  void (*release_step)(halfstep_step* step);

  /* What a program takes and gives. HALFSTEP_TRAIN: inputs of train_step; its outputs are read with loss and so on.
   * HALFSTEP_EVALUATE: outputs "row_loss" f32[batch], with classes "row_correct" f32[batch], where not every label
   * counts "row_counted" f32[batch], and where labels weigh as their classes do "row_weighed" f32[batch], which the
   * mean is over; the model's own as "outputs/NAME". HALFSTEP_PREDICT: the same without labels, and the model's outputs
   * under their names. The model's outputs are there where the step was compiled with keep_outputs; those that it
   * computes in f16 or bf16 are given as f32. */
  halfstep_status* (*value_count)(const halfstep_step* step, halfstep_program program, halfstep_direction direction,
                                  size_t* count);
  halfstep_status* (*value_at)(const halfstep_step* step, halfstep_program program, halfstep_direction direction,
                               size_t index, halfstep_value* value);

  /* Runs one batch forward and backward, and the optimizer; with accumulation N the optimizer at every Nth call.
   * `inputs` holds each input of HALFSTEP_TRAIN once, in any order. Values that choose a class or a row of a table are
   * checked. Does not wait for the device. A failure while the step runs may leave a changed state: load a checkpoint.
   */
  halfstep_status* (*train_step)(halfstep_step* step, const halfstep_input* inputs, size_t input_count);
  /* Of the last optimizer step, or the batches of the present one so far: wait until the device has them. An error
   * before the first call of train_step. The loss is the mean over the labels that count, and may be no finite number.
   */
  halfstep_status* (*loss)(halfstep_step* step, double* loss);
  /* Of the last finished optimizer step. The scale is 1 where the loss is not scaled. skipped: 1 where gradients were
   * not finite and the weights stayed as they were. */
  halfstep_status* (*loss_scale)(halfstep_step* step, double* scale);
  halfstep_status* (*skipped)(halfstep_step* step, int32_t* skipped);
  /* Optimizer steps so far, skipped ones included; those before a loaded checkpoint count. */
  halfstep_status* (*step_count)(const halfstep_step* step, int64_t* count);

  /* The rate of the steps that follow; at first the recipe's. Finite and not negative. */
  halfstep_status* (*set_learning_rate)(halfstep_step* step, double rate);
  halfstep_status* (*learning_rate)(const halfstep_step* step, double* rate);

  /* Runs one batch through the model as it is for inference (dropout off, running statistics), and copies outputs to
   * the caller. Waits. `outputs` names what is wanted, each once; others are dropped. The weights stay as they are. */
  halfstep_status* (*evaluate_step)(halfstep_step* step, const halfstep_input* inputs, size_t input_count,
                                    const halfstep_output* outputs, size_t output_count);
  halfstep_status* (*predict)(halfstep_step* step, const halfstep_input* inputs, size_t input_count,
                              const halfstep_output* outputs, size_t output_count);

  /* All weights as one buffer of floats without gaps: first the trainable ones in the order of the step, then the
   * others by name. `tensors` and `elements` are both needed. */
  halfstep_status* (*parameter_count)(const halfstep_step* step, size_t* tensors, size_t* elements);
  halfstep_status* (*parameter_at)(const halfstep_step* step, size_t index, halfstep_parameter* parameter);
  /* `count` floats, exactly as parameter_count says. Both wait for the device. Writing takes finite numbers; the
   * optimizer's state and the loss scale stay as they are. */
  halfstep_status* (*read_parameters)(halfstep_step* step, float* values, size_t count);
  halfstep_status* (*write_parameters)(halfstep_step* step, const float* values, size_t count);

  /* Writes weights, optimizer, loss scale and counts to DIRECTORY/step-NNNNNNNNN, also when the process dies: what was
   * there stays until the new one is whole. Keeps the newest `keep` (0: all). One process writes in a directory. An
   * error between the batches of one optimizer step. */
  halfstep_status* (*save_checkpoint)(halfstep_step* step, const char* directory, int32_t keep);
  /* `path` is a checkpoint, or a directory of them: its newest. The seed is the checkpoint's from here on. */
  halfstep_status* (*load_checkpoint)(halfstep_step* step, const char* path);

  /* ---- version 2 ---- */

  /* What to do about it, as the message ends; "" where it says no such thing. */
  const char* (*status_hint)(const halfstep_status* status);

  /* Where the step runs: HALFSTEP_CPU and 0, or HALFSTEP_CUDA and the GPU's index. */
  halfstep_status* (*step_device)(const halfstep_step* step, halfstep_device* device, int32_t* device_index);

  /* Fills all but the name from a DLTensor of DLPack, whose shape, strides and data it points into. */
  halfstep_status* (*tensor_of_dlpack)(const void* dltensor, halfstep_tensor* tensor);

  /* As train_step, evaluate_step and predict, with tensors that lie in host memory or on the step's GPU. Inputs on the
   * GPU are not copied to the host, but for those whose values are checked (labels, rows of tables, bools). `stream`:
   * the cudaStream_t on which they were written and may be written or freed next; NULL: the legacy default stream. The
   * host does not wait for it, but where values are checked. On a step that runs on the CPU it must be NULL. */
  halfstep_status* (*train_tensors)(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                    void* stream);
  halfstep_status* (*evaluate_tensors)(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                       const halfstep_tensor* outputs, size_t output_count, void* stream);
  halfstep_status* (*predict_tensors)(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                      const halfstep_tensor* outputs, size_t output_count, void* stream);

  /* The oldest finished optimizer step that was not told yet, without waiting for the device: its number as step_count
   * counts, its loss, its loss scale and whether it was skipped. 0 and nothing else: there is none now. The newest
   * 1,024 are kept. */
  halfstep_status* (*next_finished)(halfstep_step* step, int64_t* number, double* loss, double* scale,
                                    int32_t* skipped);

  /* Says that the caller has trained `epochs` whole epochs of `samples` samples. A checkpoint written before the next
   * train_step is one that `halfstep train --resume` goes on from with the next epoch, in its own order; it refuses
   * those of other moments, whose place in the data nobody knows. The steps that follow are of epoch `epochs` + 1,
   * which recipe key unfreeze asks for. */
  halfstep_status* (*set_epochs)(halfstep_step* step, int64_t epochs, int64_t samples);

  /* The state of the loss scale after the last step: waits for the device. Writing sets the scale and the tracker of
   * the steps that follow; factors and interval must be those that the step was compiled with. An error where the loss
   * scale is not dynamic, and reading is one where losses have a scale each (read_grad_scalers); writing is one, too,
   * between the batches of one optimizer step. */
  halfstep_status* (*read_grad_scaler)(halfstep_step* step, halfstep_grad_scaler* state);
  halfstep_status* (*write_grad_scaler)(halfstep_step* step, const halfstep_grad_scaler* state);

  /* The losses of a step that was compiled with several; 0 of another. `loss` gives their weighted sum; of
   * HALFSTEP_EVALUATE the outputs of loss number I are "row_loss.I", "row_correct.I", "row_counted.I" and
   * "row_weighed.I". */
  halfstep_status* (*loss_count)(const halfstep_step* step, size_t* count);
  halfstep_status* (*loss_at)(const halfstep_step* step, size_t index, halfstep_loss* loss);
  /* `count` values, exactly as loss_count says, of the steps that `loss` tells of: wait for the device. */
  halfstep_status* (*read_losses)(halfstep_step* step, double* values, size_t count);

  /* Measures of evaluation over several batches, named as in recipes: "f1,auc"; NULL or "": the recipe's.
   * begin_measures forgets what was added. measure_tensors runs a batch as evaluate_tensors does and adds its first
   * `rows` samples (0: all); it waits. What reads the model's outputs wants a step that was compiled with the measure
   * or keep_outputs. */
  halfstep_status* (*begin_measures)(halfstep_step* step, const char* names);
  halfstep_status* (*measure_tensors)(halfstep_step* step, const halfstep_tensor* inputs, size_t input_count,
                                      void* stream, size_t rows);
  /* What they say so far: "loss", with classes "accuracy", of several losses "loss.NAME" and "accuracy.NAME", then the
   * measures. NaN: it is not defined. A name is the step's until the next of these four calls. */
  halfstep_status* (*measure_count)(halfstep_step* step, size_t* count);
  halfstep_status* (*measure_at)(halfstep_step* step, size_t index, const char** name, double* value);

  /* What set_epochs said last, or the checkpoint that was loaded since; 0 at first. */
  halfstep_status* (*epoch_count)(const halfstep_step* step, int64_t* count);

  /* As read_grad_scaler and write_grad_scaler, of every loss scale of the step: one for each loss that has its own, in
   * the order of loss_at, or one for all, whose loss is "". 0: the loss scale is not dynamic. `count` states, exactly
   * as grad_scaler_count says; their names are the step's. Writing takes each loss once, in any order, and all or
   * nothing; or a single state with the loss "", which every scale takes. */
  halfstep_status* (*grad_scaler_count)(const halfstep_step* step, size_t* count);
  halfstep_status* (*read_grad_scalers)(halfstep_step* step, halfstep_loss_grad_scaler* states, size_t count);
  halfstep_status* (*write_grad_scalers)(halfstep_step* step, const halfstep_loss_grad_scaler* states, size_t count);
} halfstep_api;

typedef struct halfstep_compiler_api {
  /* Everything that keeps a model from training, a text each; an empty list: nothing does. `model` is an ONNX file or a
   * recipe (TOML), here and below, and the options are the keys of recipes and of the command line: {"batch", "64"}.
   * Release with release_strings. */
  halfstep_status* (*check_model)(const char* model, const halfstep_option* options, size_t option_count,
                                  halfstep_strings** problems);

  /* The precision of every node of the model. Release with release_precision. Rows: 0 for NULL. */
  halfstep_status* (*inspect_model)(const char* model, const halfstep_option* options, size_t option_count,
                                    halfstep_precision** precision);
  size_t (*precision_count)(const halfstep_precision* precision);
  halfstep_status* (*precision_at)(const halfstep_precision* precision, size_t index, halfstep_precision_row* row);
  void (*release_precision)(halfstep_precision* precision);

  /* Compiles the training step into `directory`, which is made, or replaced if it is a compiled step: at every moment
   * the old one or the new one is there. Takes seconds. `remarks`: what the user should know, a text each; may be NULL.
   */
  halfstep_status* (*compile_model)(const char* model, const halfstep_option* options, size_t option_count,
                                    const char* directory, halfstep_strings** remarks);

  /* Writes the weights of `step` into a copy of the ONNX file that it was compiled from; names stay. `model` says where
   * that is now; NULL: where it was. Refuses weights that are not finite. Waits for the device. */
  halfstep_status* (*export_onnx)(halfstep_step* step, const char* model, const char* path);
} halfstep_compiler_api;

#if defined(__GNUC__)
#define HALFSTEP_EXPORT __attribute__((visibility("default")))
#else
#define HALFSTEP_EXPORT
#endif

/* The table of `version`, from 1 to HALFSTEP_API_VERSION; NULL for one that this library does not have. Valid for the
 * life of the process. */
HALFSTEP_EXPORT const halfstep_api* halfstep_get_api(uint32_t version);                   /* libhalfstep-runtime */
HALFSTEP_EXPORT const halfstep_compiler_api* halfstep_get_compiler_api(uint32_t version); /* libhalfstep-compiler */

#ifdef __cplusplus
}
#endif

#endif /* HALFSTEP_HALFSTEP_H_ */
