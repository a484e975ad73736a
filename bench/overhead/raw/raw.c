// Runs the models of a face pipeline on ONNX Runtime's C API and nothing else: no picture, no template, tensors bound once.
// What a frame needs beyond this is the pipeline's own cost.
//
// Usage: raw LIBRARY DETECTOR EMBEDDER, then lines on the standard input: "D E" runs the detector D times and the embedder E
// times, in turns, and answers with the seconds that it took. It ends with its input.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "onnxruntime_c_api.h"

static const OrtApi *api;

static void must(OrtStatus *s) {
	if (!s) return;
	fprintf(stderr, "raw: %s\n", api->GetErrorMessage(s));
	exit(1);
}

typedef struct {
	OrtSession *session;
	OrtIoBinding *binding;
} model;

static void bind(model *m, OrtAllocator *a, OrtMemoryInfo *memory, int output, size_t i) {
	char *name;
	OrtTypeInfo *type;
	const OrtTensorTypeAndShapeInfo *info;
	must(output ? api->SessionGetOutputName(m->session, i, a, &name) : api->SessionGetInputName(m->session, i, a, &name));
	must(output ? api->SessionGetOutputTypeInfo(m->session, i, &type) : api->SessionGetInputTypeInfo(m->session, i, &type));
	must(api->CastTypeInfoToTensorInfo(type, &info));
	size_t rank, count = 1;
	int64_t shape[8];
	must(api->GetDimensionsCount(info, &rank));
	if (rank > 8) exit(1);
	must(api->GetDimensions(info, shape, rank));
	for (size_t d = 0; d < rank; d++) {
		if (shape[d] < 1) shape[d] = 1;  // a batch left open: one
		count *= (size_t)shape[d];
	}
	void *data = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
	if (!data) exit(1);
	for (size_t k = 0; k < count; k++) ((float *)data)[k] = (float)(k % 251) - 125;
	OrtValue *value;
	must(api->CreateTensorWithDataAsOrtValue(memory, data, count * sizeof(float), shape, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
	must(output ? api->BindOutput(m->binding, name, value) : api->BindInput(m->binding, name, value));
	must(api->AllocatorFree(a, name));
	api->ReleaseTypeInfo(type);
}

static model load(OrtEnv *env, const char *path) {
	OrtSessionOptions *o;
	must(api->CreateSessionOptions(&o));
	must(api->SetIntraOpNumThreads(o, 1));
	must(api->SetInterOpNumThreads(o, 1));
	must(api->SetSessionGraphOptimizationLevel(o, ORT_ENABLE_ALL));
	must(api->AddSessionConfigEntry(o, "session.intra_op.allow_spinning", "0"));
	model m;
	must(api->CreateSession(env, path, o, &m.session));
	must(api->CreateIoBinding(m.session, &m.binding));
	OrtAllocator *a;
	OrtMemoryInfo *memory;
	must(api->GetAllocatorWithDefaultOptions(&a));
	must(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
	size_t in, out;
	must(api->SessionGetInputCount(m.session, &in));
	must(api->SessionGetOutputCount(m.session, &out));
	for (size_t i = 0; i < in; i++) bind(&m, a, memory, 0, i);
	for (size_t i = 0; i < out; i++) bind(&m, a, memory, 1, i);
	return m;
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
	if (argc != 4) return 2;
	void *lib = dlopen(argv[1], RTLD_NOW);
	if (!lib) return fprintf(stderr, "raw: %s\n", dlerror()), 1;
	const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(lib, "OrtGetApiBase");
	if (!base || !(api = base()->GetApi(16))) return fprintf(stderr, "raw: no ONNX Runtime\n"), 1;
	OrtEnv *env;
	must(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "raw", &env));
	model detect = load(env, argv[2]), embed = load(env, argv[3]);
	int d, e;
	while (scanf("%d %d", &d, &e) == 2) {
		double start = now();
		for (int i = 0, k = 0; i < d; i++) {
			must(api->RunWithBinding(detect.session, NULL, detect.binding));
			for (int until = (int)((long)(i + 1) * e / d); k < until; k++) must(api->RunWithBinding(embed.session, NULL, embed.binding));
		}
		printf("%.9f\n", now() - start);
		fflush(stdout);
	}
	return 0;
}
