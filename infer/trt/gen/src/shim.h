// The C face of TensorRT's C++ interface, the same for every generation of its headers. shim.cc fills it once a
// generation; whoever opened the library chooses the generation by its version. Nothing of TensorRT's headers is seen here.
//
// Ownership: what a function returns is freed by the function of that name with _free, children before parents. Strings
// that go in are copied or read during the call. No function lets an exception out. A zero or NULL answer means failure;
// the reason stands in the log.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// vt_entry holds the plain C entry points of an open library, found by dlsym; see NvInfer.h and NvOnnxParser.h.
typedef struct vt_entry {
	void *(*create_builder)(void *logger, int32_t version);
	void *(*create_runtime)(void *logger, int32_t version);
	void *(*create_parser)(void *network, void *logger, int32_t version);  // NULL: no parser was opened
	int32_t (*parser_version)(void);
	int32_t version;  // what getInferLibVersion answered
} vt_entry;

enum { VT_LOG_BYTES = 16384, VT_NAME_BYTES = 256, VT_MAX_DIMS = 8 };

// vt_log keeps the first messages of the library, one a line: later ones are echoes. It belongs to the caller, zeroed, and
// outlives everything that was made with it. The library may log from threads of its own.
typedef struct vt_log {
	char lock;
	uint32_t errors_used, warnings_used;
	char errors[VT_LOG_BYTES], warnings[VT_LOG_BYTES];
} vt_log;

// vt_shape is the shape of one input; it fixes what the model leaves open.
typedef struct vt_shape {
	char name[VT_NAME_BYTES];
	int32_t rank;
	int64_t dims[VT_MAX_DIMS];
} vt_shape;

// vt_step hears of progress: step of steps of a phase within parent ("" for none). An answer of 0 cancels the build.
typedef int32_t (*vt_step)(uintptr_t user, const char *phase, const char *parent, int32_t step, int32_t steps);

typedef struct vt_order {
	const void *model;
	size_t model_bytes;
	const vt_shape *shapes;
	int32_t shape_count;
	size_t workspace_bytes;  // of the device, at most; 0 leaves it to the library
	vt_step step;
	uintptr_t user;
} vt_order;

typedef struct vt_counts {
	int32_t layers, quantize, dequantize;
} vt_counts;

// vt_tensor describes one input or output of an engine.
typedef struct vt_tensor {
	char name[VT_NAME_BYTES];
	int32_t input;    // 1 for an input
	int32_t float32;  // 1 if its values are float32 in host order, rows last
	int32_t rank;
	int64_t dims[VT_MAX_DIMS];  // -1 for an open size
} vt_tensor;

// vt_read gives up to bytes bytes of a serialised engine from offset on: a pointer that is valid until the next call, and
// their number; less than 0 for failure, 0 at the end.
typedef int64_t (*vt_read)(uintptr_t user, int64_t offset, int64_t bytes, const void **data);

// vt_copy copies bytes from the host to wherever to points, ordered after what stream holds, and returns when from may be
// reused; 0 for success.
typedef int32_t (*vt_copy)(void *to, const void *from, size_t bytes, void *stream);

typedef struct vt_api {
	const char *headers;  // version that this generation was compiled from, such as "11.4"

	// build parses and builds; NULL if refused. data and bytes are those of the serialised engine.
	void *(*build)(const vt_entry *entry, const vt_order *order, vt_counts *counts, vt_log *log);
	const void *(*built_data)(void *built);
	size_t (*built_bytes)(void *built);
	void (*built_free)(void *built);

	void *(*runtime)(const vt_entry *entry, vt_log *log);
	void (*runtime_free)(void *runtime);
	// streams says whether engine_stream may be used with this library.
	int32_t (*streams)(int32_t version);
	void *(*engine)(void *runtime, const void *data, size_t bytes);
	void *(*engine_stream)(void *runtime, vt_read read, vt_copy copy, int64_t bytes, uintptr_t user);
	void (*engine_free)(void *engine);
	int32_t (*tensors)(void *engine);
	int32_t (*tensor)(void *engine, int32_t i, vt_tensor *out);
	int64_t (*scratch_bytes)(void *engine);  // of device memory that a context needs while it runs

	// context makes a context without device memory of its own.
	void *(*context)(void *engine);
	void (*context_free)(void *context);
	int32_t (*set_scratch)(void *context, void *device, int64_t bytes);
	int32_t (*set_shape)(void *context, const vt_shape *shape);
	int32_t (*set_address)(void *context, const char *name, void *device);
	int32_t (*enqueue)(void *context, void *stream);
} vt_api;

// One function a generation; those that a build lacks are NULL.
const vt_api *vigil_trt_gen10(void) __attribute__((weak));
const vt_api *vigil_trt_gen11(void) __attribute__((weak));
const vt_api *vigil_trt_genrtx(void) __attribute__((weak));

#ifdef __cplusplus
}
#endif
