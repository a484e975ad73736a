#define _GNU_SOURCE
#include "ops.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// even rounds to a whole number, half to even, in the rounding mode that every thread starts in. rint is one instruction on
// ARM; baseline x86-64 has none, and a call per value costs more than the rest: there, adding and taking away 1.5 * 2^52
// does it for doubles below 2^51. A compiler that fuses v * scale with that addition would round once too few, so it is used
// only where there is no such instruction.
static inline double even(double v) {
#if defined(__x86_64__) && !defined(__FMA__)
	return (v + 6755399441055744.0) - 6755399441055744.0;
#else
	return rint(v) + 0.0;  // no negative zeros
#endif
}

// finish scales a row by its sum of squares and rounds it.
static void finish(const float *in, float *out, size_t size, double sum) {
	if (!(sum > 0) || isinf(sum)) {
		memset(out, 0, size * sizeof *out);
		return;
	}
	const double scale = 127 / sqrt(sum);
	for (size_t i = 0; i < size; i++) out[i] = (float)even((double)in[i] * scale);
}

void vigil_l2_normalize_quantize(const float *in, float *out, size_t rows, size_t size) {
	// The products are exact and every row is summed in the reference's order, one addition waiting for the last; four rows
	// at a time keep the adder busy meanwhile.
	for (; rows >= 4; rows -= 4, in += 4 * size, out += 4 * size) {
		double sum[4] = {0};
		for (size_t i = 0; i < size; i++)
			for (size_t r = 0; r < 4; r++) sum[r] += (double)in[r * size + i] * (double)in[r * size + i];
		for (size_t r = 0; r < 4; r++) finish(in + r * size, out + r * size, size, sum[r]);
	}
	for (; rows > 0; rows--, in += size, out += size) {
		double sum = 0;
		for (size_t i = 0; i < size; i++) sum += (double)in[i] * (double)in[i];
		finish(in, out, size, sum);
	}
}

// The kernel has no state but the table of functions, so it is that table.

static vigil_status *create(const vigil_op *op, vigil_api api, const void *info, void **kernel) {
	(void)op, (void)info;
	*kernel = (void *)api;
	return NULL;
}

static void destroy(void *kernel) { (void)kernel; }

static vigil_status *sizes_of(vigil_api api, const void *value, int64_t sizes[2]) {
	void *shape = NULL;
	vigil_status *s = vigil_call(api, VIGIL_API_GET_SHAPE, vigil_status *, const void *, void **)(value, &shape);
	if (s) return s;
	size_t rank = 0;
	s = vigil_call(api, VIGIL_API_GET_RANK, vigil_status *, const void *, size_t *)(shape, &rank);
	if (!s && rank != 2)
		s = vigil_call(api, VIGIL_API_CREATE_STATUS, vigil_status *, int, const char *)(VIGIL_INVALID_ARGUMENT, "L2NormalizeQuantize takes rows: a tensor of two axes");
	if (!s) s = vigil_call(api, VIGIL_API_GET_SIZES, vigil_status *, const void *, int64_t *, size_t)(shape, sizes, 2);
	vigil_call(api, VIGIL_API_RELEASE_SHAPE, void, void *)(shape);
	return s;
}

static vigil_status *compute(void *kernel, void *context) {
	vigil_api api = kernel;
	void *in = NULL, *out = NULL, *src = NULL, *dst = NULL;
	int64_t sizes[2] = {0, 0};
	vigil_status *s = vigil_call(api, VIGIL_API_KERNEL_INPUT, vigil_status *, const void *, size_t, void **)(context, 0, &in);
	if (!s) s = sizes_of(api, in, sizes);
	if (!s) s = vigil_call(api, VIGIL_API_KERNEL_OUTPUT, vigil_status *, void *, size_t, const int64_t *, size_t, void **)(context, 0, sizes, 2, &out);
	if (!s) s = vigil_call(api, VIGIL_API_GET_DATA, vigil_status *, void *, void **)(in, &src);
	if (!s) s = vigil_call(api, VIGIL_API_GET_DATA, vigil_status *, void *, void **)(out, &dst);
	if (!s) vigil_l2_normalize_quantize(src, dst, (size_t)sizes[0], (size_t)sizes[1]);
	return s;
}

static const char *name(const vigil_op *op) { (void)op; return "L2NormalizeQuantize"; }
static const char *provider(const vigil_op *op) { (void)op; return NULL; }  // the CPU's
static int float32(const vigil_op *op, size_t i) { (void)op, (void)i; return VIGIL_FLOAT32; }
static size_t one(const vigil_op *op) { (void)op; return 1; }
static int required(const vigil_op *op, size_t i) { (void)op, (void)i; return VIGIL_REQUIRED; }
static int memory(const vigil_op *op, size_t i) { (void)op, (void)i; return VIGIL_MEMORY_DEFAULT; }
static int no(const vigil_op *op) { (void)op; return 0; }

// The domain points to it for as long as it lives. Without compute the runtime takes the functions that return a status.
static const vigil_op l2_normalize_quantize = {
	.version = VIGIL_ORT_API,
	.get_name = name,
	.get_provider = provider,
	.get_input_type = float32,
	.get_input_count = one,
	.get_output_type = float32,
	.get_output_count = one,
	.destroy = destroy,
	.get_input_characteristic = required,
	.get_output_characteristic = required,
	.get_input_memory = memory,
	.get_variadic_input_least = no,
	.get_variadic_input_homogeneity = no,
	.get_variadic_output_least = no,
	.get_variadic_output_homogeneity = no,
	.create_kernel_v2 = create,
	.compute_v2 = compute,
};

char *vigil_ops_open(vigil_ops *ops, const char *library, const char *domain) {
	memset(ops, 0, sizeof *ops);
	void *lib = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
	if (!lib) return strdup("the library is not open");
	struct base {  // OrtApiBase
		vigil_api (*get_api)(uint32_t version);
		const char *(*get_version)(void);
	};
	const struct base *(*get_base)(void) = (const struct base *(*)(void))dlsym(lib, "OrtGetApiBase");
	const struct base *base = get_base ? get_base() : NULL;
	dlclose(lib);  // its opener keeps it
	ops->api = base ? base->get_api(VIGIL_ORT_API) : NULL;
	if (!ops->api) return strdup("the library does not speak version 16 of the C API");
	ops->plugins = base->get_api(VIGIL_ORT_PLUGINS);
	char *failed = vigil_reason(ops->api, vigil_call(ops->api, VIGIL_API_CREATE_DOMAIN, vigil_status *, const char *, void **)(domain, &ops->domain));
	if (!failed) failed = vigil_reason(ops->api, vigil_call(ops->api, VIGIL_API_DOMAIN_ADD, vigil_status *, void *, const vigil_op *)(ops->domain, &l2_normalize_quantize));
	if (failed) vigil_ops_close(ops);
	return failed;
}

char *vigil_ops_add(const vigil_ops *ops, void *options) {
	return vigil_reason(ops->api, vigil_call(ops->api, VIGIL_API_ADD_DOMAIN, vigil_status *, void *, void *)(options, ops->domain));
}

void vigil_ops_close(vigil_ops *ops) {
	if (ops->domain) vigil_call(ops->api, VIGIL_API_RELEASE_DOMAIN, void, void *)(ops->domain);
	memset(ops, 0, sizeof *ops);
}
