// The part of ONNX Runtime's C API that the binding lacks, for operators of ours and for providers, declared by its layout: the table of functions grows at its
// end only, so an index holds for every version from VIGIL_ORT_API on. A test compiles this beside the real header and
// compares each index, offset and value.
#ifndef VIGIL_ORT_OPS_H
#define VIGIL_ORT_OPS_H

#include <stddef.h>
#include <stdint.h>

// VIGIL_ORT_API is the version of the API that is asked for, the first with kernels that return a status.
#define VIGIL_ORT_API 16

// VIGIL_ORT_PLUGINS is the first version that knows provider libraries registered by path, and their devices.
#define VIGIL_ORT_PLUGINS 22

// Indices in OrtApi.
enum {
	VIGIL_API_CREATE_STATUS = 0,
	VIGIL_API_GET_ERROR_MESSAGE = 2,
	VIGIL_API_CREATE_ENV = 3,
	VIGIL_API_CREATE_DOMAIN = 26,
	VIGIL_API_DOMAIN_ADD = 27,
	VIGIL_API_ADD_DOMAIN = 28,
	VIGIL_API_GET_DATA = 51,
	VIGIL_API_GET_RANK = 61,
	VIGIL_API_GET_SIZES = 62,
	VIGIL_API_GET_SHAPE = 65,
	VIGIL_API_KERNEL_INPUT = 90,
	VIGIL_API_KERNEL_OUTPUT = 91,
	VIGIL_API_RELEASE_ENV = 92,
	VIGIL_API_RELEASE_STATUS = 93,
	VIGIL_API_RELEASE_SHAPE = 99,
	VIGIL_API_RELEASE_DOMAIN = 101,
	VIGIL_API_GET_PROVIDERS = 125,
	VIGIL_API_RELEASE_PROVIDERS = 126,
	VIGIL_API_RUN_BOUND = 133,
	VIGIL_API_GET_DEVICES = 303,      // from version VIGIL_ORT_PLUGINS on
	VIGIL_API_APPEND_DEVICES = 304,
	VIGIL_API_DEVICE_PROVIDER = 312,
};

// Values of enumerations.
enum {
	VIGIL_FLOAT32 = 1,           // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
	VIGIL_REQUIRED = 0,          // INPUT_OUTPUT_REQUIRED
	VIGIL_MEMORY_DEFAULT = 0,    // OrtMemTypeDefault
	VIGIL_LOG_FATAL = 4,         // ORT_LOGGING_LEVEL_FATAL
	VIGIL_INVALID_ARGUMENT = 2,  // ORT_INVALID_ARGUMENT
};

typedef void (*vigil_fn)(void);
typedef const vigil_fn *vigil_api;  // OrtApi
typedef void vigil_status;          // OrtStatus; NULL is success

// vigil_call finds a function of the table with the type that it has in the header.
#define vigil_call(api, index, result, ...) ((result(*)(__VA_ARGS__))(api)[index])

// vigil_op is OrtCustomOp up to the fields of version VIGIL_ORT_API; the runtime reads no further.
typedef struct vigil_op {
	uint32_t version;
	void *(*create_kernel)(const struct vigil_op *, vigil_api, const void *info);
	const char *(*get_name)(const struct vigil_op *);
	const char *(*get_provider)(const struct vigil_op *);
	int (*get_input_type)(const struct vigil_op *, size_t);
	size_t (*get_input_count)(const struct vigil_op *);
	int (*get_output_type)(const struct vigil_op *, size_t);
	size_t (*get_output_count)(const struct vigil_op *);
	void (*compute)(void *kernel, void *context);
	void (*destroy)(void *kernel);
	int (*get_input_characteristic)(const struct vigil_op *, size_t);
	int (*get_output_characteristic)(const struct vigil_op *, size_t);
	int (*get_input_memory)(const struct vigil_op *, size_t);
	int (*get_variadic_input_least)(const struct vigil_op *);
	int (*get_variadic_input_homogeneity)(const struct vigil_op *);
	int (*get_variadic_output_least)(const struct vigil_op *);
	int (*get_variadic_output_homogeneity)(const struct vigil_op *);
	vigil_status *(*create_kernel_v2)(const struct vigil_op *, vigil_api, const void *info, void **kernel);
	vigil_status *(*compute_v2)(void *kernel, void *context);
} vigil_op;

// vigil_ops is the domain of our operators in one opened library.
typedef struct {
	vigil_api api;
	vigil_api plugins;  // the same of version VIGIL_ORT_PLUGINS; NULL in an older library
	void *domain;       // OrtCustomOpDomain
} vigil_ops;

// vigil_ops_open makes the domain in the library of that path, which the process has opened already. It returns NULL, or
// what failed, in text that the caller frees.
char *vigil_ops_open(vigil_ops *ops, const char *library, const char *domain);

// vigil_ops_add makes the operators known to the sessions of these options (OrtSessionOptions). It returns as above.
char *vigil_ops_add(const vigil_ops *ops, void *options);

// vigil_ops_close frees the domain; every session that knows it must be released before.
void vigil_ops_close(vigil_ops *ops);

// vigil_reason turns a status into text that the caller frees, and releases it; NULL for success.
char *vigil_reason(vigil_api api, vigil_status *status);

// vigil_run runs a session (OrtSession) on its binding (OrtIoBinding) with options (OrtRunOptions) that may end it early. It
// returns NULL, or what failed, in text that the caller frees.
char *vigil_run(vigil_api api, void *session, const void *options, const void *binding);

// vigil_providers gives the names of the providers that the library was built with, a line each, in *names, which the caller
// frees. It returns as above.
char *vigil_providers(vigil_api api, char **names);

// vigil_append_devices puts the devices that a registered provider library offers under the provider's name into the options
// of a session, with options for the provider; *count says how many there were. With none the options are as before.
char *vigil_append_devices(vigil_api plugins, void *options, const char *provider, const char *const *keys,
                           const char *const *values, size_t pairs, size_t *count);

// vigil_mend_signals makes every signal handler of the process that somebody else installed run on the alternative stack, as
// Go demands of code that it shares a process with: a signal that meets a goroutine would else overrun its small stack.
// It returns how many handlers were without.
int vigil_mend_signals(void);

// vigil_pin locks host memory for the CUDA runtime that a provider has loaded, so that it is copied without a detour, and
// vigil_unpin gives it back. They return 0, CUDA's error, or -1 where no such runtime is loaded.
int vigil_pin(void *memory, size_t bytes);
int vigil_unpin(void *memory);

// vigil_l2_normalize_quantize is the operator's work on rows of size values; see infer.OpL2NormalizeQuantize.
void vigil_l2_normalize_quantize(const float *in, float *out, size_t rows, size_t size);

#endif
