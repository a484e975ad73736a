// A library that says it is TensorRT of the version VIGIL_FAKE_VERSION, and whose builder does what VIGIL_FAKE_BUILDER
// says: hang, eat memory, crash, or exit. It is the ONNX parser as well.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int32_t getInferLibVersion(void) {
	const char *v = getenv("VIGIL_FAKE_VERSION");
	return v ? atoi(v) : 0;
}

int32_t getNvOnnxParserVersion(void) { return 200; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int32_t version) { return (void)network, (void)logger, (void)version, NULL; }
void *createInferRuntime_INTERNAL(void *logger, int32_t version) { return (void)logger, (void)version, NULL; }

void *createInferBuilder_INTERNAL(void *logger, int32_t version) {
	const char *what = getenv("VIGIL_FAKE_BUILDER");
	(void)logger, (void)version;
	if (!what) return NULL;
	if (!strcmp(what, "hang")) {
		for (;;) sleep(1);
	}
	if (!strcmp(what, "eat")) {
		for (;;) {
			char *p = malloc(1 << 20);
			if (p) {
				memset(p, 1, 1 << 20);
			} else {
				sleep(1);  // as a library that retries
			}
			usleep(200);
		}
	}
	if (!strcmp(what, "crash")) {
		fprintf(stderr, "terminate called by the stand-in\n");
		abort();
	}
	if (!strcmp(what, "exit")) exit(0);
	return NULL;
}
