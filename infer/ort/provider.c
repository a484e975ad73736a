#define _GNU_SOURCE
#include "ops.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

char *vigil_reason(vigil_api api, vigil_status *s) {
	if (!s) return NULL;
	char *text = strdup(vigil_call(api, VIGIL_API_GET_ERROR_MESSAGE, const char *, const vigil_status *)(s));
	vigil_call(api, VIGIL_API_RELEASE_STATUS, void, vigil_status *)(s);
	return text ? text : strdup("no memory");
}

char *vigil_run(vigil_api api, void *session, const void *options, const void *binding) {
	return vigil_reason(api, vigil_call(api, VIGIL_API_RUN_BOUND, vigil_status *, void *, const void *, const void *)(session, options, binding));
}

char *vigil_providers(vigil_api api, char **names) {
	char **list = NULL;
	int n = 0;
	*names = NULL;
	char *failed = vigil_reason(api, vigil_call(api, VIGIL_API_GET_PROVIDERS, vigil_status *, char ***, int *)(&list, &n));
	if (failed) return failed;
	size_t size = 1;
	for (int i = 0; i < n; i++) size += strlen(list[i]) + 1;
	char *to = *names = calloc(1, size);
	for (int i = 0; to && i < n; i++) to = stpcpy(stpcpy(to, list[i]), "\n");
	failed = vigil_reason(api, vigil_call(api, VIGIL_API_RELEASE_PROVIDERS, vigil_status *, char **, int)(list, n));
	return failed || *names ? failed : strdup("no memory");
}

char *vigil_append_devices(vigil_api api, void *options, const char *provider, const char *const *keys,
                           const char *const *values, size_t pairs, size_t *count) {
	void *env = NULL;  // the one of the process, counted
	const void *const *all = NULL;
	size_t n = 0;
	*count = 0;
	char *failed = vigil_reason(api, vigil_call(api, VIGIL_API_CREATE_ENV, vigil_status *, int, const char *, void **)(VIGIL_LOG_FATAL, "vigil", &env));
	if (failed) return failed;
	failed = vigil_reason(api, vigil_call(api, VIGIL_API_GET_DEVICES, vigil_status *, const void *, const void *const **, size_t *)(env, &all, &n));
	const void **mine = failed ? NULL : calloc(n + 1, sizeof *mine);
	if (!failed && !mine) failed = strdup("no memory");
	for (size_t i = 0; !failed && i < n; i++)
		if (!strcmp(vigil_call(api, VIGIL_API_DEVICE_PROVIDER, const char *, const void *)(all[i]), provider)) mine[(*count)++] = all[i];
	if (!failed && *count > 0)
		failed = vigil_reason(api, vigil_call(api, VIGIL_API_APPEND_DEVICES, vigil_status *, void *, void *, const void *const *, size_t, const char *const *, const char *const *, size_t)(options, env, mine, *count, keys, values, pairs));
	free(mine);
	vigil_call(api, VIGIL_API_RELEASE_ENV, void, void *)(env);
	return failed;
}

int vigil_mend_signals(void) {
	int mended = 0;
	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction a;
		if (sigaction(sig, NULL, &a) != 0 || a.sa_handler == SIG_DFL || a.sa_handler == SIG_IGN || a.sa_flags & SA_ONSTACK) continue;
		a.sa_flags |= SA_ONSTACK;
		mended += sigaction(sig, &a, NULL) == 0;
	}
	return mended;
}

// The CUDA runtime that a provider brought with it; nothing is loaded for this.
static void *cuda_runtime(const char *function) {
	static const char *const names[] = {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		void *lib = dlopen(names[i], RTLD_NOW | RTLD_NOLOAD);
		if (!lib) continue;
		void *f = dlsym(lib, function);
		dlclose(lib);  // the provider keeps it
		if (f) return f;
	}
	return NULL;
}

int vigil_pin(void *memory, size_t bytes) {
	int (*host_register)(void *, size_t, unsigned) = (int (*)(void *, size_t, unsigned))cuda_runtime("cudaHostRegister");
	return host_register ? host_register(memory, bytes, 0) : -1;
}

int vigil_unpin(void *memory) {
	int (*host_unregister)(void *) = (int (*)(void *))cuda_runtime("cudaHostUnregister");
	return host_unregister ? host_unregister(memory) : -1;
}
