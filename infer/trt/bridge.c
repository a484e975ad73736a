//go:build tensorrt

#include "bridge.h"

#include <dlfcn.h>
#include <string.h>

void *vt_open(const char *path, int global, const char **why) {
	void *library = dlopen(path, RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
	*why = library ? NULL : dlerror();
	return library;
}

void vt_close(void *library) {
	if (library) dlclose(library);
}

int32_t vt_version(void *library) {
	int32_t (*version)(void) = (int32_t (*)(void))dlsym(library, "getInferLibVersion");
	return version ? version() : 0;
}

static const char *find(void *library, const char *name, void *out) {
	void *f = dlsym(library, name);
	memcpy(out, &f, sizeof f);
	return f ? NULL : name;
}

const char *vt_entries(void *library, void *parser, vt_entry *e) {
	const char *missing = find(library, "createInferRuntime_INTERNAL", &e->create_runtime);
	find(library, "createInferBuilder_INTERNAL", &e->create_builder);  // a lean runtime has none
	if (!missing && parser) missing = find(parser, "createNvOnnxParser_INTERNAL", &e->create_parser);
	if (!missing && parser) missing = find(parser, "getNvOnnxParserVersion", &e->parser_version);
	return missing;
}

const vt_api *vt_generation(const char *name) {
	if (!strcmp(name, "10") && vigil_trt_gen10) return vigil_trt_gen10();
	if (!strcmp(name, "11") && vigil_trt_gen11) return vigil_trt_gen11();
	if (!strcmp(name, "rtx") && vigil_trt_genrtx) return vigil_trt_genrtx();
	return NULL;
}

const char *vt_cuda_open(void *library, vt_cuda *c) {
	const struct {
		const char *name;
		void *to;
	} wanted[] = {
		{"cudaRuntimeGetVersion", &c->runtimeGetVersion},
		{"cudaDriverGetVersion", &c->driverGetVersion},
		{"cudaGetDeviceCount", &c->getDeviceCount},
		{"cudaDeviceGetAttribute", &c->deviceGetAttribute},
		{"cudaSetDeviceFlags", &c->setDeviceFlags},
		{"cudaGetErrorString", &c->getErrorString},
		{"cudaMalloc", &c->malloc},
		{"cudaFree", &c->free},
		{"cudaMemset", &c->memset},
		{"cudaHostAlloc", &c->hostAlloc},
		{"cudaFreeHost", &c->freeHost},
		{"cudaMemcpyAsync", &c->memcpyAsync},
		{"cudaStreamCreateWithFlags", &c->streamCreateWithFlags},
		{"cudaStreamDestroy", &c->streamDestroy},
		{"cudaStreamSynchronize", &c->streamSynchronize},
		{"cudaStreamBeginCapture", &c->streamBeginCapture},
		{"cudaStreamEndCapture", &c->streamEndCapture},
		{"cudaGraphInstantiateWithFlags", &c->graphInstantiateWithFlags},
		{"cudaGraphLaunch", &c->graphLaunch},
		{"cudaGraphExecDestroy", &c->graphExecDestroy},
		{"cudaGraphDestroy", &c->graphDestroy},
	};
	c->library = library;
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		const char *missing = find(library, wanted[i].name, wanted[i].to);
		if (missing) return missing;
	}
	return NULL;
}

// Values of enumerations of cuda_runtime_api.h.
enum {
	attributeMajor = 75,        // cudaDevAttrComputeCapabilityMajor
	attributeMinor = 76,        // cudaDevAttrComputeCapabilityMinor
	waitBlocking = 4,           // cudaDeviceScheduleBlockingSync: a waiting thread sleeps
	hostToDevice = 1,           // cudaMemcpyHostToDevice
	deviceToHost = 2,           // cudaMemcpyDeviceToHost
	fromAnywhere = 4,           // cudaMemcpyDefault
	streamNonBlocking = 1,      // cudaStreamNonBlocking: it does not wait for the default stream
	captureThreadLocal = 1,     // cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile
};

void vt_cuda_tell(const vt_cuda *c, vt_tell *out) {
	memset(out, 0, sizeof *out);
	c->runtimeGetVersion(&out->runtime);
	if (c->driverGetVersion(&out->driver)) out->driver = 0;
	if ((out->error = c->getDeviceCount(&out->devices))) {
		out->devices = 0;
		return;
	}
	if (out->devices < 1) return;
	c->deviceGetAttribute(&out->major, attributeMajor, 0);
	c->deviceGetAttribute(&out->minor, attributeMinor, 0);
}

void vt_log_forget(vt_log *log) {
	while (__atomic_test_and_set(&log->lock, __ATOMIC_ACQUIRE)) {
	}
	log->errors_used = 0;
	log->errors[0] = 0;
	__atomic_clear(&log->lock, __ATOMIC_RELEASE);
}

// vigilTrtStep and vigilTrtRead are in build.go and engine.go.
extern int32_t vigilTrtStep(uintptr_t user, char *phase, char *parent, int32_t step, int32_t steps);
extern int64_t vigilTrtRead(uintptr_t user, int64_t offset, int64_t bytes, void **data);

static int32_t step(uintptr_t user, const char *phase, const char *parent, int32_t done, int32_t steps) {
	return vigilTrtStep(user, (char *)phase, (char *)parent, done, steps);
}

void *vt_build_told(const vt_api *api, const vt_entry *entry, const vt_order *order, uintptr_t user, vt_counts *counts, vt_log *log) {
	vt_order told = *order;
	told.step = step;
	told.user = user;
	return api->build(entry, &told, counts, log);
}

const void *vt_built_data(const vt_api *api, void *built) { return api->built_data(built); }
size_t vt_built_bytes(const vt_api *api, void *built) { return api->built_bytes(built); }
void vt_built_free(const vt_api *api, void *built) { api->built_free(built); }
void *vt_runtime(const vt_api *api, const vt_entry *entry, vt_log *log) { return api->runtime(entry, log); }
void vt_runtime_free(const vt_api *api, void *runtime) { api->runtime_free(runtime); }
int32_t vt_streams(const vt_api *api, int32_t version) { return api->streams(version); }
void *vt_engine(const vt_api *api, void *runtime, const void *data, size_t bytes) { return api->engine(runtime, data, bytes); }

// pull passes the reads of one engine on to Go. Its copies go through the CUDA runtime, for the library may ask for pieces
// on the device.
typedef struct pull {
	const vt_cuda *cuda;
	uintptr_t user;
} pull;

static _Thread_local const vt_cuda *copying;  // of the engine that this thread makes; the library reads on the calling thread

static int64_t pullRead(uintptr_t user, int64_t offset, int64_t bytes, const void **data) {
	return vigilTrtRead(((pull *)user)->user, offset, bytes, (void **)data);
}

static int32_t pullCopy(void *to, const void *from, size_t bytes, void *stream) {
	if (!copying) return 1;
	int error = copying->memcpyAsync(to, from, bytes, fromAnywhere, stream);
	return error ? error : copying->streamSynchronize(stream);  // from is used again for the next piece
}

void *vt_engine_stream(const vt_api *api, const vt_cuda *cuda, void *runtime, int64_t bytes, uintptr_t user) {
	pull p = {cuda, user};
	copying = cuda;
	void *engine = api->engine_stream(runtime, pullRead, pullCopy, bytes, (uintptr_t)&p);
	copying = NULL;
	return engine;
}

void vt_engine_free(const vt_api *api, void *engine) { api->engine_free(engine); }
int32_t vt_tensors(const vt_api *api, void *engine) { return api->tensors(engine); }
int32_t vt_tensor_at(const vt_api *api, void *engine, int32_t i, vt_tensor *out) { return api->tensor(engine, i, out); }
int64_t vt_scratch_bytes(const vt_api *api, void *engine) { return api->scratch_bytes(engine); }

int vt_cuda_stream(const vt_cuda *c, void **stream) {
	c->setDeviceFlags(waitBlocking);  // fails where the device is in use already: then a wait costs a core
	return c->streamCreateWithFlags(stream, streamNonBlocking);
}

int vt_cuda_stream_free(const vt_cuda *c, void *stream) { return c->streamDestroy(stream); }
int vt_cuda_alloc(const vt_cuda *c, size_t bytes, void **device) { return c->malloc(device, bytes); }
int vt_cuda_free(const vt_cuda *c, void *device) { return c->free(device); }
const char *vt_cuda_error(const vt_cuda *c, int code) { return c->getErrorString(code); }

// failed notes what went wrong and returns 1.
static int32_t failed(vt_way *w, const char *what, int error) {
	w->failed = what;
	w->error = error;
	return 1;
}

int32_t vt_way_open(vt_way *w, void *engine) {
	int error;
	w->context = w->api->context(engine);
	if (!w->context) return failed(w, "make an execution context", 0);
	for (int32_t i = 0; i < w->count; i++) {
		if (w->t[i].use != VT_UNWANTED) {
			if ((error = w->cuda->hostAlloc(&w->t[i].host, w->t[i].bytes, 0))) return failed(w, "pin host memory", error);
			memset(w->t[i].host, 0, w->t[i].bytes);
		}
		if ((error = w->cuda->malloc(&w->t[i].device, w->t[i].bytes))) return failed(w, "allocate device memory", error);
		if ((error = w->cuda->memset(w->t[i].device, 0, w->t[i].bytes))) return failed(w, "clear device memory", error);
		if (!w->api->set_address(w->context, w->t[i].name, w->t[i].device)) return failed(w, "bind a tensor", 0);
	}
	return 0;
}

int32_t vt_way_shape(vt_way *w, const vt_shape *shape) {
	return w->api->set_shape(w->context, shape) ? 0 : failed(w, "set the shape of an input", 0);
}

// pass puts one frame on the stream: as work, or into a graph that is being captured.
static int32_t pass(vt_way *w) {
	int error;
	for (int32_t i = 0; i < w->count; i++) {
		if (w->t[i].use != VT_INPUT) continue;
		if ((error = w->cuda->memcpyAsync(w->t[i].device, w->t[i].host, w->t[i].bytes, hostToDevice, w->stream)))
			return failed(w, "copy an input", error);
	}
	if (!w->api->enqueue(w->context, w->stream)) return failed(w, "run the model", 0);
	for (int32_t i = 0; i < w->count; i++) {
		if (w->t[i].use != VT_OUTPUT) continue;
		if ((error = w->cuda->memcpyAsync(w->t[i].host, w->t[i].device, w->t[i].bytes, deviceToHost, w->stream)))
			return failed(w, "copy an output", error);
	}
	return 0;
}

static void countCopies(vt_way *w) {
	for (int32_t i = 0; i < w->count; i++) {
		if (w->t[i].use == VT_INPUT) w->copies_in++;
		if (w->t[i].use == VT_OUTPUT) w->copies_out++;
	}
}

static int32_t wait(vt_way *w) {
	int error = w->cuda->streamSynchronize(w->stream);
	return error ? failed(w, "wait for the device", error) : 0;
}

int32_t vt_way_scratch(vt_way *w, void *scratch, int64_t bytes) {
	if (w->graph) w->cuda->graphExecDestroy(w->graph);  // it has the old addresses in it
	w->graph = NULL;
	return w->api->set_scratch(w->context, scratch, bytes) ? 0 : failed(w, "take the scratch memory into use", 0);
}

int32_t vt_way_ready(vt_way *w, void *scratch, int64_t bytes) {
	if (vt_way_scratch(w, scratch, bytes)) return 1;
	return pass(w) || wait(w);
}

int32_t vt_way_capture(vt_way *w) {
	int error, refused;
	void *graph = NULL;
	if ((error = w->cuda->streamBeginCapture(w->stream, captureThreadLocal))) return failed(w, "begin a CUDA graph", error);
	refused = pass(w);
	error = w->cuda->streamEndCapture(w->stream, &graph);
	if (refused || error || !graph) {
		if (graph) w->cuda->graphDestroy(graph);
		return refused ? 1 : failed(w, "end a CUDA graph", error);
	}
	error = w->cuda->graphInstantiateWithFlags(&w->graph, graph, 0);
	w->cuda->graphDestroy(graph);
	if (error) {
		w->graph = NULL;
		return failed(w, "make a CUDA graph executable", error);
	}
	w->captures++;
	return 0;
}

int32_t vt_way_run(vt_way *w) {
	int error;
	if (w->graph) {
		if ((error = w->cuda->graphLaunch(w->graph, w->stream))) return failed(w, "launch the CUDA graph", error);
		w->launches++;
	} else if (pass(w)) {
		return 1;
	}
	countCopies(w);
	w->syncs++;
	return wait(w);
}

void vt_way_close(vt_way *w) {
	if (w->graph) w->cuda->graphExecDestroy(w->graph);
	if (w->context) w->api->context_free(w->context);
	for (int32_t i = 0; i < w->count; i++) {
		if (w->t[i].host) {
			memset(w->t[i].host, 0, w->t[i].bytes);
			__asm__ volatile("" ::"r"(w->t[i].host) : "memory");  // so that the wiping stays
			w->cuda->freeHost(w->t[i].host);
		}
		if (w->t[i].device) {
			w->cuda->memset(w->t[i].device, 0, w->t[i].bytes);
			w->cuda->free(w->t[i].device);
		}
	}
	memset(w, 0, sizeof *w);
}
