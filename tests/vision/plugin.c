/* A TFLite delegate that takes every node of a graph, for the tests of delegates and of isolation.
 *
 * It declares by hand, in the layout of TensorFlow Lite's c/common.h, only what it touches.
 * Output byte i = low byte of (sum of input bytes + i). The first input byte commands:
 * 0xDE: abort, as a native engine does; 0xAD: hang; 0xBE: fail as TFLite asks for.
 * Option device=absent: refuse to be created. Options are printed on standard error.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int size; int data[]; } IntArray;

typedef struct {
  int type;
  uint8_t* data;
  IntArray* dims;
  float scale;
  int32_t zero_point;
  int allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  void* delegate;
  int buffer_handle;
  char is_stale, is_variable;
  int quantization_type;
  void* quantization_params;
  void* sparsity;
  IntArray* dims_signature;
} Tensor;

typedef struct { IntArray* inputs; IntArray* outputs; } Node;

typedef struct Context Context;

typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling_string)(const Context*, const Node*);
  int builtin_code;
  const char* custom_name;
  int version;
  void* external;
  void* async_kernel;
  uint64_t inplace;
} Registration;

typedef struct Delegate Delegate;

struct Context {
  size_t tensors_size;
  int (*get_execution_plan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  int (*resize_tensor)(Context*, Tensor*, IntArray*);
  void (*report_error)(Context*, const char*, ...);
  int (*add_tensors)(Context*, int, int*);
  int (*get_node)(Context*, int, Node**, Registration**);
  int (*replace_nodes)(Context*, Registration, const IntArray*, Delegate*);
};

struct Delegate {
  void* data;
  int (*prepare)(Context*, Delegate*);
  int (*copy_from)(Context*, Delegate*, int, Tensor*);
  int (*copy_to)(Context*, Delegate*, int, Tensor*);
  void (*free_handle)(Context*, Delegate*, int*);
  int64_t flags;
  void* opaque_builder;
};

/* The tensors that hold data at run time: constants are passed too, so pick by how they are allocated. */
static Tensor* first_variable(Context* context, IntArray* indices) {
  for (int i = 0; i < indices->size; i++) {
    Tensor* tensor = context->tensors + indices->data[i];
    if (indices->data[i] >= 0 && tensor->allocation_type == 2) return tensor; /* kTfLiteArenaRw */
  }
  return NULL;
}

static int prepare_node(Context* context, Node* node) { return 0; }

static int invoke_node(Context* context, Node* node) {
  Tensor* input = first_variable(context, node->inputs);
  Tensor* output = first_variable(context, node->outputs);
  if (!input || !output) return 1;
  if (input->data[0] == 0xDE) abort();
  if (input->data[0] == 0xAD) sleep(600);
  if (input->data[0] == 0xBE) {
    context->report_error(context, "the test delegate was told to fail");
    return 1;
  }
  unsigned sum = 0;
  for (size_t i = 0; i < input->bytes; i++) sum += input->data[i];
  for (size_t i = 0; i < output->bytes; i++) output->data[i] = (uint8_t)(sum + i);
  return 0;
}

static int take_all(Context* context, Delegate* delegate) {
  IntArray* plan;
  Registration kernel;
  memset(&kernel, 0, sizeof kernel);
  kernel.prepare = prepare_node;
  kernel.invoke = invoke_node;
  kernel.custom_name = "EdgeClTestDelegate";
  kernel.version = 1;
  if (context->get_execution_plan(context, &plan)) return 1;
  return context->replace_nodes(context, kernel, plan, delegate);
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  for (size_t i = 0; i < count; i++) {
    fprintf(stderr, "PLUGIN %s=%s\n", keys[i], values[i]);
    if (!strcmp(keys[i], "device") && !strcmp(values[i], "absent")) {
      report("no accelerator is plugged in");
      return NULL;
    }
  }
  Delegate* delegate = calloc(1, sizeof *delegate);
  delegate->prepare = take_all;
  delegate->flags = 1; /* kTfLiteDelegateFlagsAllowDynamicTensors, or unknown operations are refused first */
  return delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
