// What the Go files of this package call: opening libraries, TensorRT through gen/src/shim.h, the CUDA runtime by functions that were found
// by name, and one way of a frame over the device. Go cannot call a C function by its address, so every call has a
// wrapper here. Functions that return int32_t answer 0 for success unless they say otherwise.
#pragma once

#include "gen/src/shim.h"

// vt_cuda holds the functions of an open libcudart. Types as in cuda_runtime_api.h of CUDA 11.4 to 13: streams, graphs and
// graph executables are pointers, enumerations are int.
typedef struct vt_cuda {
	void *library;
	int (*runtimeGetVersion)(int *);
	int (*driverGetVersion)(int *);
	int (*getDeviceCount)(int *);
	int (*deviceGetAttribute)(int *, int, int);
	int (*setDeviceFlags)(unsigned);
	const char *(*getErrorString)(int);
	int (*malloc)(void **, size_t);
	int (*free)(void *);
	int (*memset)(void *, int, size_t);
	int (*hostAlloc)(void **, size_t, unsigned);
	int (*freeHost)(void *);
	int (*memcpyAsync)(void *, const void *, size_t, int, void *);
	int (*streamCreateWithFlags)(void **, unsigned);
	int (*streamDestroy)(void *);
	int (*streamSynchronize)(void *);
	int (*streamBeginCapture)(void *, int);
	int (*streamEndCapture)(void *, void **);
	int (*graphInstantiateWithFlags)(void **, void *, unsigned long long);
	int (*graphLaunch)(void *, void *);
	int (*graphExecDestroy)(void *);
	int (*graphDestroy)(void *);
} vt_cuda;

// vt_tell is what the probe of a CUDA runtime found; all 0 without a driver or a device.
typedef struct vt_tell {
	int runtime, driver, devices, major, minor, error;
} vt_tell;

// vt_open opens a library; NULL with the reason in why, which is dlerror's and valid until the next call on this thread.
void *vt_open(const char *path, int global, const char **why);
void vt_close(void *library);

// vt_version is what getInferLibVersion of the library answers; 0 if it has no such function.
int32_t vt_version(void *library);

// vt_entries finds the entry points; parser may be NULL. The name of one that is missing comes back, else NULL.
const char *vt_entries(void *library, void *parser, vt_entry *entry);

// vt_generation returns the object of a generation by its name; NULL if this build has none.
const vt_api *vt_generation(const char *name);

// vt_cuda_open finds the functions of an open libcudart; the name of one that is missing comes back, else NULL.
const char *vt_cuda_open(void *library, vt_cuda *cuda);
void vt_cuda_tell(const vt_cuda *cuda, vt_tell *out);

// vt_log_forget drops the errors so far, so that the next ones are those of what comes.
void vt_log_forget(vt_log *log);

// Wrappers.
void *vt_build_told(const vt_api *api, const vt_entry *entry, const vt_order *order, uintptr_t user, vt_counts *counts, vt_log *log);
const void *vt_built_data(const vt_api *api, void *built);
size_t vt_built_bytes(const vt_api *api, void *built);
void vt_built_free(const vt_api *api, void *built);
void *vt_runtime(const vt_api *api, const vt_entry *entry, vt_log *log);
void vt_runtime_free(const vt_api *api, void *runtime);
int32_t vt_streams(const vt_api *api, int32_t version);  // 1 if it streams
void *vt_engine(const vt_api *api, void *runtime, const void *data, size_t bytes);
// vt_engine_stream reads through vigilTrtRead(user, ...); cuda must stay until it returns.
void *vt_engine_stream(const vt_api *api, const vt_cuda *cuda, void *runtime, int64_t bytes, uintptr_t user);
void vt_engine_free(const vt_api *api, void *engine);
int32_t vt_tensors(const vt_api *api, void *engine);
int32_t vt_tensor_at(const vt_api *api, void *engine, int32_t i, vt_tensor *out);  // 1 for success
int64_t vt_scratch_bytes(const vt_api *api, void *engine);
int vt_cuda_stream(const vt_cuda *cuda, void **stream);
int vt_cuda_stream_free(const vt_cuda *cuda, void *stream);
int vt_cuda_alloc(const vt_cuda *cuda, size_t bytes, void **device);
int vt_cuda_free(const vt_cuda *cuda, void *device);
const char *vt_cuda_error(const vt_cuda *cuda, int code);

// vt_way is one set of bound tensors and the way of a frame over it: host memory that is pinned, device memory, a context,
// and the graph that does it all at one launch. It is zeroed, then vt_way_open; vt_way_close frees what there is.
enum { VT_MAX_TENSORS = 32 };
// vt_use: an output that nobody wants has device memory, for TensorRT writes it, and never comes back.
enum vt_use { VT_OUTPUT, VT_INPUT, VT_UNWANTED };
typedef struct vt_way {
	const vt_api *api;
	const vt_cuda *cuda;
	void *stream, *context, *graph;
	int32_t count;
	struct {
		char name[VT_NAME_BYTES];
		void *host, *device;
		size_t bytes;
		int32_t use;  // of enum vt_use
	} t[VT_MAX_TENSORS];
	uint64_t copies_in, copies_out, syncs, launches, captures;
	int error;          // of the CUDA runtime, for the last failure
	const char *failed;  // what failed, for people
} vt_way;

// vt_way_open makes the context and the memory of count tensors whose name, bytes and use are set.
int32_t vt_way_open(vt_way *w, void *engine);
int32_t vt_way_shape(vt_way *w, const vt_shape *shape);
// vt_way_ready takes the scratch memory into use and does one run without a graph, which TensorRT wants before a capture.
int32_t vt_way_ready(vt_way *w, void *scratch, int64_t scratch_bytes);
// vt_way_capture makes the graph, or leaves the way without one: then failed says why, and 1 comes back.
int32_t vt_way_capture(vt_way *w);
int32_t vt_way_scratch(vt_way *w, void *scratch, int64_t scratch_bytes);
// vt_way_run does one frame: inputs over, the model, outputs back, one wait.
int32_t vt_way_run(vt_way *w);
void vt_way_close(vt_way *w);
