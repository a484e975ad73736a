//go:build cuda

#include "driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

// attributes of CUdevice_attribute in cuda.h.
enum { computeMajor = 75, computeMinor = 76 };

static void *find(void *driver, const char *name, vigil_cuda_answer *a) {
	void *f = dlsym(driver, name);
	if (!f && !a->missing) {
		a->missing = 1;
		snprintf(a->text, sizeof a->text, "libcuda.so.1 has no %s", name);
	}
	return f;
}

static int failed(vigil_cuda_answer *a, const char *what, int code) {
	if (code) {
		a->error = code;
		snprintf(a->text, sizeof a->text, "%s", what);
	}
	return code;
}

static void ask(void *driver, vigil_cuda_answer *a) {
	int (*init)(unsigned) = find(driver, "cuInit", a);
	int (*version)(int *) = find(driver, "cuDriverGetVersion", a);
	int (*count)(int *) = find(driver, "cuDeviceGetCount", a);
	int (*get)(int *, int) = find(driver, "cuDeviceGet", a);
	int (*name)(char *, int, int) = find(driver, "cuDeviceGetName", a);
	int (*attribute)(int *, int, int) = find(driver, "cuDeviceGetAttribute", a);
	int (*memory)(size_t *, int) = find(driver, "cuDeviceTotalMem_v2", a);
	int device = 0;
	size_t bytes = 0;
	if (a->missing) return;
	version(&a->driver);  // works before cuInit
	if (failed(a, "cuInit", init(0)) || failed(a, "cuDeviceGetCount", count(&a->devices)) || a->devices < 1) return;
	if (failed(a, "cuDeviceGet", get(&device, 0)) || failed(a, "cuDeviceGetName", name(a->name, sizeof a->name, device)) ||
		failed(a, "cuDeviceGetAttribute", attribute(&a->major, computeMajor, device)) ||
		failed(a, "cuDeviceGetAttribute", attribute(&a->minor, computeMinor, device)) ||
		failed(a, "cuDeviceTotalMem", memory(&bytes, device)))
		return;
	a->bytes = bytes;
}

void vigil_cuda_probe(vigil_cuda_answer *a) {
	memset(a, 0, sizeof *a);
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!driver) {
		const char *why = dlerror();
		a->missing = 1;
		snprintf(a->text, sizeof a->text, "%s", why ? why : "libcuda.so.1 does not open");
		return;
	}
	ask(driver, a);
	// It stays open: the driver keeps threads of its own after cuInit, whose code must not go.
}
