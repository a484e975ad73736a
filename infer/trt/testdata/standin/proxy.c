// The real TensorRT under another version number: it says VIGIL_PROXY_VERSION and passes everything on to the library
// VIGIL_PROXY_REAL, which is asked for its true version, so that an update of the library can be played.
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

static void *real(void) {
	static void *library;
	if (!library) library = dlopen(getenv("VIGIL_PROXY_REAL"), RTLD_NOW | RTLD_LOCAL);
	if (!library) abort();
	return library;
}

static int32_t version(void) { return ((int32_t(*)(void))dlsym(real(), "getInferLibVersion"))(); }
static void *call(const char *name, void *logger) { return ((void *(*)(void *, int32_t))dlsym(real(), name))(logger, version()); }

int32_t getInferLibVersion(void) {
	const char *said = getenv("VIGIL_PROXY_VERSION");
	return said ? atoi(said) : version();
}
void *createInferBuilder_INTERNAL(void *logger, int32_t said) { return (void)said, call("createInferBuilder_INTERNAL", logger); }
void *createInferRuntime_INTERNAL(void *logger, int32_t said) { return (void)said, call("createInferRuntime_INTERNAL", logger); }
