#include "kernels.h"

#include <math.h>
#include <string.h>

// MOST_TAPS bounds the rows that one output row is made of; kernels.Letterbox makes tables within it or this package is not
// asked.
#define MOST_TAPS 64

// PLAN is the number of words that the table of eight outputs of an enlarged row takes.
enum { PLAN = 32 };

// SHUFFLE picks elements of two vectors; the compilers name it differently.
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t vigil_i4 __attribute__((vector_size(16)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vigil_i4){__VA_ARGS__})
#endif

// vigil_line is the number of floats of a row of three channels, with four to spare: whole cache lines.
static inline size_t vigil_line(int src_w, int out_w) { return (3 * (size_t)(src_w > out_w ? src_w : out_w) + 4 + 15) & ~(size_t)15; }

#define NAME(x) plain_##x
#include "body.h"
#undef NAME

const vigil_kernels vigil_kernels_plain = {"plain", plain_letterbox, plain_warp, plain_rgb, plain_mirror, plain_moments, plain_luminance, plain_histogram, plain_dot};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include <immintrin.h>
#define WIDEN(four) _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)))
#define NAME(x) avx2_##x
#include "body.h"
#undef NAME
#pragma GCC pop_options

static const vigil_kernels kernels_avx2 = {"AVX2", avx2_letterbox, avx2_warp, avx2_rgb, avx2_mirror, avx2_moments, avx2_luminance, avx2_histogram, avx2_dot};

const vigil_kernels *vigil_kernels_best(void) {
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernels_avx2 : &vigil_kernels_plain;
}
#else
const vigil_kernels *vigil_kernels_best(void) { return &vigil_kernels_plain; }
#endif

size_t vigil_letterbox_scratch(int src_w, int out_w, int rows_width) {
	return 16 + vigil_line(src_w, out_w) * (size_t)(rows_width + 1) + (PLAN / 8) * (size_t)out_w + 4;
}
