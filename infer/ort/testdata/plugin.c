// A provider library that offers nothing, for tests: it stands in for a vendor's. As CUDA's does, it installs a signal handler
// that runs on the stack it finds.
#include <signal.h>
#include <stddef.h>

static void ignore(int sig) { (void)sig; }

__attribute__((constructor)) static void loaded(void) {
	struct sigaction a = {.sa_handler = ignore};
	sigaction(SIGUSR2, &a, NULL);
}

void *CreateEpFactories(const char *name, const void *api, const void *logger, void **factories, size_t most, size_t *count) {
	(void)name, (void)api, (void)logger, (void)factories, (void)most;
	*count = 0;
	return NULL;
}

void *ReleaseEpFactory(void *factory) {
	(void)factory;
	return NULL;
}
