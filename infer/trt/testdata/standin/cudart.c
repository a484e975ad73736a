// A stand-in for libcudart without a GPU: device memory is host memory, and what is put on a stream is done when somebody
// waits for it, not before, so that a wait that is missing shows. Every call that moves or waits is written to the file that
// VIGIL_STANDIN_TRACE names. VIGIL_STANDIN_NOCAPTURE=1 refuses to end a capture; VIGIL_STANDIN_NODRIVER=1 has no driver.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { maxWork = 256, noDriver = 35, refused = 900 };

typedef struct {
	void *to;
	const void *from;
	size_t bytes;
} copy;

typedef struct {
	copy work[maxWork];
	int count;
} graph;

typedef struct {
	graph queue;      // to be done at the next wait
	graph *capturing;  // takes the work instead, or NULL
} stream;

static void trace(const char *what, size_t bytes) {
	const char *path = getenv("VIGIL_STANDIN_TRACE");
	FILE *f = path ? fopen(path, "a") : NULL;
	if (!f) return;
	fprintf(f, "%s %zu\n", what, bytes);
	fclose(f);
}

static int driver(void) { return getenv("VIGIL_STANDIN_NODRIVER") == NULL; }

static int add(graph *g, void *to, const void *from, size_t bytes) {
	if (g->count == maxWork) return 1;
	g->work[g->count++] = (copy){to, from, bytes};
	return 0;
}

int cudaRuntimeGetVersion(int *v) { return *v = 12060, 0; }
int cudaDriverGetVersion(int *v) { return *v = driver() ? 12060 : 0, 0; }
int cudaGetDeviceCount(int *n) { return *n = driver(), driver() ? 0 : noDriver; }
int cudaDeviceGetAttribute(int *v, int what, int device) { return *v = what == 75 ? 8 : 7, device; }
int cudaSetDeviceFlags(unsigned flags) { return flags != 4; }
const char *cudaGetErrorString(int code) { return code == refused ? "operation not permitted when stream is capturing (stand-in)" : "error of the stand-in"; }
int cudaMalloc(void **p, size_t n) { return trace("malloc", n), !(*p = malloc(n)); }
int cudaFree(void *p) { return free(p), 0; }
int cudaMemset(void *p, int v, size_t n) { return memset(p, v, n), 0; }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return trace("pin", n), flags || posix_memalign(p, 4096, n); }
int cudaFreeHost(void *p) { return free(p), 0; }

int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *on) {
	static const char *const names[] = {"h2h", "h2d", "d2h", "d2d", "any"};
	stream *s = on;
	if (kind == 4 && !s) return memcpy(to, from, n), 0;  // an engine that is read: on the default stream, waited for at once
	trace(s->capturing ? "captured" : names[kind], n);
	return add(s->capturing ? s->capturing : &s->queue, to, from, n);
}

int cudaStreamCreateWithFlags(void **p, unsigned flags) { return flags != 1 || !(*p = calloc(1, sizeof(stream))); }
int cudaStreamDestroy(void *p) { return free(p), 0; }

int cudaStreamSynchronize(void *on) {
	stream *s = on;
	if (!s) return 0;
	if (s->capturing) return refused;
	trace("sync", 0);
	for (int i = 0; i < s->queue.count; i++) memcpy(s->queue.work[i].to, s->queue.work[i].from, s->queue.work[i].bytes);
	s->queue.count = 0;
	return 0;
}

int cudaStreamBeginCapture(void *on, int mode) {
	stream *s = on;
	return mode != 1 || s->capturing || !(s->capturing = calloc(1, sizeof(graph)));
}

int cudaStreamEndCapture(void *on, void **out) {
	stream *s = on;
	*out = s->capturing;
	s->capturing = NULL;
	if (!getenv("VIGIL_STANDIN_NOCAPTURE")) return 0;
	free(*out);
	*out = NULL;
	return refused;
}

int cudaGraphInstantiateWithFlags(void **exec, void *from, unsigned long long flags) {
	if (flags || !(*exec = malloc(sizeof(graph)))) return 1;
	memcpy(*exec, from, sizeof(graph));
	return 0;
}

int cudaGraphLaunch(void *exec, void *on) {
	graph *g = exec;
	stream *s = on;
	trace("launch", (size_t)g->count);
	for (int i = 0; i < g->count; i++) {
		if (add(&s->queue, g->work[i].to, g->work[i].from, g->work[i].bytes)) return 1;
	}
	return 0;
}

int cudaGraphExecDestroy(void *p) { return free(p), 0; }
int cudaGraphDestroy(void *p) { return free(p), 0; }
