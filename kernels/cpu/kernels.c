#include "kernels.h"

#include <math.h>
#include <string.h>

// MOST_TAPS bounds the rows that one output row is made of; kernels.Letterbox makes tables within it or this package is not
// asked.
#define MOST_TAPS 64

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
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define WIDEN(four) _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)))
#define LANES 8
#define VEC __m256
#define VECI __m256i
#define VLOAD _mm256_loadu_ps
#define VLOADI(p) _mm256_loadu_si256((const __m256i *)(p))
#define VSTORE _mm256_storeu_ps
#define VPICK(v, at) _mm256_permutevar8x32_ps(v, at)
#define VNEXT(at) _mm256_add_epi32(at, _mm256_set1_epi32(1))
#define VMUL _mm256_mul_ps
#define VFMA _mm256_fmadd_ps
#define NAME(x) avx2_##x
#include "body.h"
#undef NAME
#undef LANES
#undef VEC
#undef VECI
#undef VLOAD
#undef VLOADI
#undef VSTORE
#undef VPICK
#undef VNEXT
#undef VMUL
#undef VFMA
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define LANES 16
#define VEC __m512
#define VECI __m512i
#define VLOAD _mm512_loadu_ps
#define VLOADI(p) _mm512_loadu_si512(p)
#define VSTORE _mm512_storeu_ps
#define VPICK(v, at) _mm512_permutexvar_ps(at, v)
#define VNEXT(at) _mm512_add_epi32(at, _mm512_set1_epi32(1))
#define VMUL _mm512_mul_ps
#define VFMA _mm512_fmadd_ps
#define NAME(x) avx512_##x
#include "body.h"
#undef NAME
#pragma GCC pop_options

#define ALL(set) set##_letterbox, set##_warp, set##_rgb, set##_mirror, set##_moments, set##_luminance, set##_histogram, set##_dot
static const vigil_kernels kernels_avx2 = {"AVX2", ALL(avx2)}, kernels_avx512 = {"AVX-512", ALL(avx512)};

const vigil_kernels *vigil_kernels_at(int i) {
	const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	const int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
	switch (i) {
	case 0: return &vigil_kernels_plain;
	case 1: return avx2 ? &kernels_avx2 : NULL;
	case 2: return avx512 ? &kernels_avx512 : NULL;
	}
	return NULL;
}
#else
const vigil_kernels *vigil_kernels_at(int i) { return i == 0 ? &vigil_kernels_plain : NULL; }
#endif

const vigil_kernels *vigil_kernels_best(void) {
	int i = 0;
	while (vigil_kernels_at(i + 1)) i++;
	return vigil_kernels_at(i);
}

size_t vigil_letterbox_scratch(int src_w, int out_w, int rows_width) {
	return 16 + vigil_line(src_w, out_w) * (size_t)(rows_width + 1) + 4 * (size_t)out_w + 16;
}
