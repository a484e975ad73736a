// Runs the models of a face pipeline on ONNX Runtime's C API and nothing else: no picture, no template, tensors bound once.
// What a frame needs beyond this is the pipeline's own cost. The inputs are those of the pipeline: where a model's time
// depends on its numbers, or on what lies in the caches after they were written, it does so for both. Only the runs are timed.
//
// Usage: raw LIBRARY DETECTOR EMBEDDER INPUTS. INPUTS holds what the models read, float32: for every frame the number of runs
// of the embedder (as one float32), the detector's input, and the embedder's inputs. Every line on the standard input is a
// number of times to run all frames, and is answered with the seconds that the models took: of every frame the least, for
// what the host of a virtual machine takes away is no cost of the models. It ends with its input.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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
	float *input;  // the first
	size_t count;
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
	if (!output && i == 0) m->input = data, m->count = count;
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

// timed copies the next input into place and runs, and gives the seconds of the run alone.
static double timed(model *m, const float **from) {
	memcpy(m->input, *from, m->count * sizeof(float));
	*from += m->count;
	double start = now();
	must(api->RunWithBinding(m->session, NULL, m->binding));
	return now() - start;
}

int main(int argc, char **argv) {
	if (argc != 5) return 2;
	int file = open(argv[4], O_RDONLY);
	struct stat info;
	if (file < 0 || fstat(file, &info)) return perror("raw"), 1;
	const float *inputs = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
	if (inputs == MAP_FAILED) return perror("raw"), 1;
	const float *end = inputs + (size_t)info.st_size / sizeof(float);
	void *lib = dlopen(argv[1], RTLD_NOW);
	if (!lib) return fprintf(stderr, "raw: %s\n", dlerror()), 1;
	const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(lib, "OrtGetApiBase");
	if (!base || !(api = base()->GetApi(16))) return fprintf(stderr, "raw: no ONNX Runtime\n"), 1;
	OrtEnv *env;
	must(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "raw", &env));
	model detect = load(env, argv[2]), embed = load(env, argv[3]);
	for (int times; scanf("%d", &times) == 1;) { // passes over all frames
		while (times-- > 0)
			for (const float *at = inputs; at < end;) {
				int runs = (int)*at++;
				double seconds = timed(&detect, &at);
				while (runs-- > 0) seconds += timed(&embed, &at);
				printf("%.9f\n", seconds);
			}
		fflush(stdout);
	}
	return 0;
}
