#define _GNU_SOURCE
#include "int8.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

// plane3 is the size of one of the four planes of a row's quadruples: the row, a pixel before it and after it, and slack.
static inline size_t plane3(const vigil_layer *l) { return ((size_t)(l->in_w + 2) * (size_t)l->in_c + 2 * VIGIL_SLACK + 63) & ~(size_t)63; }

// row_of and col_of are the pixel under position t of the kernel for a pixel of the result.
static inline int row_of(const vigil_layer *l, int y, int t) { return y * l->stride_h - l->pad_top + t / l->kernel_w * l->dilation_h; }
static inline int col_of(const vigil_layer *l, int x, int t) { return x * l->stride_w - l->pad_left + t % l->kernel_w * l->dilation_w; }

// three says whether a layer has a kernel of 3 x 3 that reads no further than one pixel beside the picture, and channels that
// fill whole vectors together.
static inline int three(const vigil_layer *l) {
	const int square = l->kernel_h == 3 && l->kernel_w == 3 && l->stride_h == l->stride_w && l->dilation_h == 1 && l->dilation_w == 1;
	const int beside = l->pad_top == 1 && l->pad_left == 1 && (l->out_w - 1) * l->stride_w < l->in_w;
	return square && beside && (l->in_c % 64 == 0 || (l->stride_w == 1 && (l->in_c == 16 || l->in_c == 32)));
}

#pragma GCC push_options
#pragma GCC optimize("O3")
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,prefer-vector-width=512")

#define INLINE static inline __attribute__((always_inline))

int vigil_int8_have(void) {
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

// narrow4 rounds four vectors half to even, adds the zero point and packs them. Packing works within lanes of 16 bytes, so a lane
// of the result holds four values of each vector.
INLINE __m512i narrow4(const __m512 f[4], __m512i zero16) {
	const __m512i lo = _mm512_packs_epi32(_mm512_cvtps_epi32(f[0]), _mm512_cvtps_epi32(f[1]));
	const __m512i hi = _mm512_packs_epi32(_mm512_cvtps_epi32(f[2]), _mm512_cvtps_epi32(f[3]));
	return _mm512_packus_epi16(_mm512_adds_epi16(lo, zero16), _mm512_adds_epi16(hi, zero16));
}

// widen4 is the way back: 64 bytes to four vectors in the order that narrow4 takes.
INLINE void widen4(__m512i bytes, __m512i out[4]) {
	const __m512i zero = _mm512_setzero_si512();
	const __m512i lo = _mm512_unpacklo_epi8(bytes, zero), hi = _mm512_unpackhi_epi8(bytes, zero);
	out[0] = _mm512_unpacklo_epi16(lo, zero), out[1] = _mm512_unpackhi_epi16(lo, zero);
	out[2] = _mm512_unpacklo_epi16(hi, zero), out[3] = _mm512_unpackhi_epi16(hi, zero);
}

// sum4 is the sum of two vectors of bytes, each with its factor.
INLINE __m512i sum4(const vigil_layer *l, __m512i first, __m512i second) {
	const __m512 a = _mm512_set1_ps(l->a), b = _mm512_set1_ps(l->b), fixed = _mm512_set1_ps(l->fixed);
	__m512i x[4], y[4];
	__m512 f[4];
	widen4(first, x);
	widen4(second, y);
#pragma GCC unroll 4
	for (int j = 0; j < 4; j++) f[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[j]), a, _mm512_fmadd_ps(_mm512_cvtepi32_ps(y[j]), b, fixed));
	return narrow4(f, _mm512_setzero_si512());
}

// ROWS repeats M for the pixels of a tile. Sums have a name each, not a place in an array: compilers keep names in registers.
#define ROWS(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define SUMS(i) __m512i a##i##0 = b0, a##i##1 = b1, a##i##2 = b2, a##i##3 = b3;
// PRODUCT is _mm512_dpbusd_epi32 in place, which GCC 12 makes copies for.
#define PRODUCT(sum, bytes, weights) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights))
#define PRODUCTS(i)                                                              \
	if (i < mr) {                                                                \
		const __m512i four = quad((near ? at + i * step : rows[i]) + 4 * k);     \
		PRODUCT(a##i##0, four, w0);                                              \
		if (nv > 1) PRODUCT(a##i##1, four, w1);                                  \
		if (nv > 2) PRODUCT(a##i##2, four, w2);                                  \
		if (nv > 3) PRODUCT(a##i##3, four, w3);                                  \
	}
#define RESULTS(i)                                                               \
	if (i < mr) {                                                                \
		uint8_t *const to = out + i * pixel;                                     \
		const uint8_t *const plus = add ? add + i * pixel : NULL;                \
		if (nv == 4) {                                                           \
			result64(l, a##i##0, a##i##1, a##i##2, a##i##3, scales, to, plus);   \
		} else {                                                                 \
			result16(l, a##i##0, scales, to, plus, 0);                           \
			if (nv > 1) result16(l, a##i##1, scales, to, plus, 16);              \
			if (nv > 2) result16(l, a##i##2, scales, to, plus, 32);              \
		}                                                                        \
	}

// quad is four values of a pixel, once in every channel of the result.
INLINE __m512i quad(const uint8_t *at) {
	int32_t four;
	memcpy(&four, at, 4);
	return _mm512_set1_epi32(four);
}

// scaled4 scales the sums of four vectors, which have scales of their own or, with step 0, the same.
INLINE __m512i scaled4(const vigil_layer *l, __m512i a, __m512i b, __m512i c, __m512i d, const float *scales, int step) {
	const __m512 f[4] = {
		_mm512_mul_ps(_mm512_cvtepi32_ps(a), _mm512_loadu_ps(scales)),
		_mm512_mul_ps(_mm512_cvtepi32_ps(b), _mm512_loadu_ps(scales + step)),
		_mm512_mul_ps(_mm512_cvtepi32_ps(c), _mm512_loadu_ps(scales + 2 * step)),
		_mm512_mul_ps(_mm512_cvtepi32_ps(d), _mm512_loadu_ps(scales + 3 * step)),
	};
	return narrow4(f, _mm512_set1_epi16((int16_t)l->out_zero));
}

// result64 ends 64 channels of a pixel, which were packed so that narrow4 puts them in their order.
INLINE void result64(const vigil_layer *l, __m512i a, __m512i b, __m512i c, __m512i d, const float *scales, uint8_t *out, const uint8_t *add) {
	__m512i q = scaled4(l, a, b, c, d, scales, 16);
	if (add) q = sum4(l, q, _mm512_loadu_si512(add));
	_mm512_storeu_si512(out, q);
}

// result16 ends the 16 channels of a pixel from one on, which are in their order.
INLINE void result16(const vigil_layer *l, __m512i sums, const float *scales, uint8_t *out, const uint8_t *add, int channel) {
	const __m512i none = _mm512_setzero_si512(), top = _mm512_set1_epi32(255);
	__m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scales + channel)));
	q = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(l->out_zero)), none), top);
	if (add) {
		const __m512 y = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(add + channel))));
		const __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(l->a), _mm512_fmadd_ps(y, _mm512_set1_ps(l->b), _mm512_set1_ps(l->fixed)));
		q = _mm512_max_epi32(_mm512_cvtps_epi32(sum), none);
	}
	_mm_storeu_si128((__m128i *)(out + channel), _mm512_cvtusepi32_epi8(q));
}

// conv_tile computes mr pixels x 16 nv channels; the pixels lie one after the other. rows holds, for every position of the
// kernel, where each of them reads; near, only where the first does, and the others step bytes further. Where a layer has 16 channels,
// four pixels are narrowed together and set right by one permutation.
INLINE void conv_tile(const int mr, const int nv, const int near, const int together, const vigil_layer *l, const uint8_t *const *rows, size_t step,
                      const int8_t *w, const int32_t *bias, const float *scales, uint8_t *out, const uint8_t *add) {
	const __m512i b0 = _mm512_loadu_si512(bias), b1 = nv > 1 ? _mm512_loadu_si512(bias + 16) : b0, b2 = nv > 2 ? _mm512_loadu_si512(bias + 32) : b0,
	              b3 = nv > 3 ? _mm512_loadu_si512(bias + 48) : b0;
	ROWS(SUMS)
	const int positions = l->kernel_h * l->kernel_w, quads = l->in_c / 4;
	const size_t pixel = (size_t)l->out_c;
	for (int t = 0; t < positions; t++, rows += near ? 1 : mr) {
		const uint8_t *at = rows[0];
		for (int k = 0; k < quads; k++, w += 64 * nv) {
			const __m512i w0 = _mm512_loadu_si512(w), w1 = nv > 1 ? _mm512_loadu_si512(w + 64) : w0, w2 = nv > 2 ? _mm512_loadu_si512(w + 128) : w0,
			              w3 = nv > 3 ? _mm512_loadu_si512(w + 192) : w0;
			ROWS(PRODUCTS)
		}
	}
	if (together) {
		const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
		_mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, scaled4(l, a00, a10, a20, a30, scales, 0)));
		_mm512_storeu_si512(out + 64, _mm512_permutexvar_epi32(order, scaled4(l, a40, a50, a60, a70, scales, 0)));
		return;
	}
	ROWS(RESULTS)
}

#define MOST_POSITIONS 64

// near_rows finds where the first of mr pixels from p on reads, if the others read beside it and none beside the picture.
INLINE int near_rows(const int mr, const vigil_layer *l, const uint8_t *in, int p, const uint8_t **rows) {
	if (!l->from) {
		rows[0] = in + (size_t)p * (size_t)l->in_c;
		return 1;
	}
	const int y = p / l->out_w, x = p % l->out_w, row = y * l->stride_h - l->pad_top, col = x * l->stride_w - l->pad_left;
	if (x + mr > l->out_w || row < 0 || col < 0 || row + (l->kernel_h - 1) * l->dilation_h >= l->in_h ||
	    col + (mr - 1) * l->stride_w + (l->kernel_w - 1) * l->dilation_w >= l->in_w)
		return 0;
	for (int i = 0; i < l->kernel_h; i++)
		for (int j = 0; j < l->kernel_w; j++)
			*rows++ = in + ((size_t)(row + i * l->dilation_h) * (size_t)l->in_w + (size_t)(col + j * l->dilation_w)) * (size_t)l->in_c;
	return 1;
}

// far_rows finds where each of mr pixels reads.
INLINE void far_rows(const int mr, const vigil_layer *l, const uint8_t *in, const uint8_t *zeros, int p, const uint8_t **rows) {
	const int pixels = l->out_h * l->out_w, positions = l->kernel_h * l->kernel_w;
	for (int t = 0; t < positions; t++)
		for (int i = 0; i < mr; i++) {
			const int32_t at = l->from[(size_t)t * (size_t)pixels + (size_t)(p + i)];
			*rows++ = at < 0 ? zeros : in + at;
		}
}

// conv_block computes all pixels of 16 nv channels, mr at a time; the last tile begins early where they are no multiple of that.
INLINE void conv_block(const int mr, const int nv, const vigil_layer *l, uint8_t *arena, int channel) {
	const int pixels = l->out_h * l->out_w, alone = l->in2 == VIGIL_NONE;
	const int8_t *w = l->weights + (size_t)channel * (size_t)(l->kernel_h * l->kernel_w) * (size_t)l->in_c;
	const int32_t *bias = l->bias + channel;
	const float *scales = l->scales + channel;
	const uint8_t *in = arena + l->in, *rows[MOST_POSITIONS * 8];
	const size_t step = (size_t)l->stride_w * (size_t)l->in_c;
	const int together = nv == 1 && mr == 8 && l->out_c == 16 && alone;
	for (int p = 0; p < pixels; p += mr) {
		const int first = p + mr <= pixels ? p : pixels - mr;
		const size_t at = (size_t)first * (size_t)l->out_c + (size_t)channel;
		uint8_t *out = arena + l->out + at;
		const uint8_t *add = alone ? NULL : arena + l->in2 + at;
		if (near_rows(mr, l, in, first, rows)) {
			if (together) conv_tile(mr, nv, 1, nv == 1 && mr == 8, l, rows, step, w, bias, scales, out, NULL);
			else conv_tile(mr, nv, 1, 0, l, rows, step, w, bias, scales, out, add);
		} else {
			far_rows(mr, l, in, arena + l->zeros, first, rows);
			conv_tile(mr, nv, 0, 0, l, rows, 0, w, bias, scales, out, add);
		}
	}
}

// conv takes fewer pixels at a time where there are fewer.
static void conv(const vigil_layer *l, uint8_t *arena) {
	const int few = l->out_h * l->out_w < 8;
	int c = 0;
	for (; c + 64 <= l->out_c; c += 64) {
		if (few) conv_block(1, 4, l, arena, c);
		else conv_block(6, 4, l, arena, c);
	}
	switch ((l->out_c - c) / 16 + (few ? 4 : 0)) {
	case 1: conv_block(8, 1, l, arena, c); break;
	case 2: conv_block(8, 2, l, arena, c); break;
	case 3: conv_block(6, 3, l, arena, c); break;
	case 5: conv_block(1, 1, l, arena, c); break;
	case 6: conv_block(1, 2, l, arena, c); break;
	case 7: conv_block(1, 3, l, arena, c); break;
	}
}

// interleave makes, of the same 64 bytes of three rows, the quadruples that dpbusd sums: byte i of every row and a 0.
INLINE void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c, uint8_t *q, size_t plane) {
	const __m512i zero = _mm512_setzero_si512(), vc = _mm512_loadu_si512(c), va = _mm512_loadu_si512(a), vb = _mm512_loadu_si512(b);
	const __m512i ab0 = _mm512_unpacklo_epi8(va, vb), ab1 = _mm512_unpackhi_epi8(va, vb), c0 = _mm512_unpacklo_epi8(vc, zero), c1 = _mm512_unpackhi_epi8(vc, zero);
	_mm512_storeu_si512(q, _mm512_unpacklo_epi16(ab0, c0));
	_mm512_storeu_si512(q + plane, _mm512_unpackhi_epi16(ab0, c0));
	_mm512_storeu_si512(q + 2 * plane, _mm512_unpacklo_epi16(ab1, c1));
	_mm512_storeu_si512(q + 3 * plane, _mm512_unpackhi_epi16(ab1, c1));
}

// depthwise3 computes a layer of 3 x 3. A row of it is made of the quadruples of three rows: byte by byte the same channel in
// the three rows, so that dpbusd sums a column of the kernel; the kernel's columns are the quadruples a pixel further. A vector
// is 64 values of a row, whether these are 64 channels of a pixel or four pixels of 16.
INLINE void depthwise3(const vigil_layer *l, uint8_t *arena) {
	const size_t c = (size_t)l->in_c, line = (size_t)l->in_w * c, plane = plane3(l), chunks = c < 64 ? 1 : c / 64;
	const size_t step = c < 64 ? 64 : c, vectors = c < 64 ? ((size_t)l->out_w * c + 63) / 64 : (size_t)l->out_w;
	uint8_t *q = arena + l->scratch;
	const uint8_t *in = arena + l->in, *zeros = arena + l->zeros;
	const int32_t edge = l->in_zero * 0x010101;
	for (int j = 0; j < 4; j++)  // the pixels beside the row
		for (size_t i = 0; i < c; i += 4) {
			memcpy(q + (size_t)j * plane + i, &edge, 4);
			memcpy(q + (size_t)j * plane + c + line + i, &edge, 4);
		}
	const __m512i zero16 = _mm512_set1_epi16((int16_t)l->out_zero);
	for (int y = 0; y < l->out_h; y++) {
		const uint8_t *r[3];
		for (int t = 0; t < 3; t++) {
			const int row = y * l->stride_h - 1 + t;
			r[t] = row < 0 || row >= l->in_h ? zeros : in + (size_t)row * line;
		}
		size_t i = 0;
		for (; i + 64 <= line; i += 64) interleave(r[0] + i, r[1] + i, r[2] + i, q + c + i, plane);
		if (i < line) {  // what is written behind the line is its edge
			interleave(r[0] + i, r[1] + i, r[2] + i, q + c + i, plane);
			for (int j = 0; j < 4; j++)
				for (size_t k = 0; k < c; k += 4) memcpy(q + (size_t)j * plane + c + line + k, &edge, 4);
		}
		for (size_t n = 0; n < chunks; n++) {
			const int8_t *w = l->weights + n * 768;
			__m512i v[3][4], bias[4];
			__m512 s[4];
#pragma GCC unroll 4
			for (int j = 0; j < 4; j++) {
				bias[j] = _mm512_loadu_si512(l->bias + 64 * n + 16 * (size_t)j), s[j] = _mm512_loadu_ps(l->scales + 64 * n + 16 * (size_t)j);
#pragma GCC unroll 3
				for (int t = 0; t < 3; t++) v[t][j] = _mm512_loadu_si512(w + 64 * (4 * t + j));
			}
			const uint8_t *from = q + 64 * n;
			uint8_t *out = arena + l->out + (size_t)y * (size_t)l->out_w * c + 64 * n;
			for (size_t x = 0; x < vectors; x++, from += step * (size_t)l->stride_w, out += step) {
				__m512 f[4];
#pragma GCC unroll 4
				for (int j = 0; j < 4; j++) {
					const uint8_t *at = from + (size_t)j * plane;
					__m512i acc = _mm512_dpbusd_epi32(bias[j], _mm512_loadu_si512(at), v[0][j]);
					acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(at + c), v[1][j]);
					acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(at + 2 * c), v[2][j]);
					f[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), s[j]);
				}
				_mm512_storeu_si512(out, narrow4(f, zero16));
			}
		}
	}
}

// depthwise_any computes any other kernel, 16 channels of a pixel at a time, four positions at once.
static void depthwise_any(const vigil_layer *l, uint8_t *arena) {
	const int positions = l->kernel_h * l->kernel_w, quads = (positions + 3) / 4;
	const size_t c = (size_t)l->in_c;
	const __m128i top = _mm_set1_epi16((int16_t)l->out_zero);
	for (int y = 0; y < l->out_h; y++)
		for (int x = 0; x < l->out_w; x++) {
			const uint8_t *rows[MOST_POSITIONS + 4];
			for (int t = 0; t < 4 * quads; t++) {
				const int row = row_of(l, y, t), col = col_of(l, x, t);
				const int inside = row >= 0 && row < l->in_h && col >= 0 && col < l->in_w && t < positions;
				rows[t] = inside ? arena + l->in + ((size_t)row * (size_t)l->in_w + (size_t)col) * c : arena + l->zeros;
			}
			uint8_t *out = arena + l->out + ((size_t)y * (size_t)l->out_w + (size_t)x) * c;
			for (size_t n = 0; n < c; n += 16) {
				const int8_t *w = l->weights + n * 4 * (size_t)quads;
				__m128i acc[4];
				for (int j = 0; j < 4; j++) acc[j] = _mm_loadu_si128((const __m128i *)(l->bias + n + 4 * (size_t)j));
				for (int t = 0; t < quads; t++, w += 64) {
					__m128i r[4];
					for (int j = 0; j < 4; j++) r[j] = _mm_loadu_si128((const __m128i *)(rows[4 * t + j] + n));
					const __m128i ab0 = _mm_unpacklo_epi8(r[0], r[1]), ab1 = _mm_unpackhi_epi8(r[0], r[1]), cd0 = _mm_unpacklo_epi8(r[2], r[3]), cd1 = _mm_unpackhi_epi8(r[2], r[3]);
					acc[0] = _mm_dpbusd_epi32(acc[0], _mm_unpacklo_epi16(ab0, cd0), _mm_loadu_si128((const __m128i *)w));
					acc[1] = _mm_dpbusd_epi32(acc[1], _mm_unpackhi_epi16(ab0, cd0), _mm_loadu_si128((const __m128i *)(w + 16)));
					acc[2] = _mm_dpbusd_epi32(acc[2], _mm_unpacklo_epi16(ab1, cd1), _mm_loadu_si128((const __m128i *)(w + 32)));
					acc[3] = _mm_dpbusd_epi32(acc[3], _mm_unpackhi_epi16(ab1, cd1), _mm_loadu_si128((const __m128i *)(w + 48)));
				}
				for (int j = 0; j < 4; j++) acc[j] = _mm_cvtps_epi32(_mm_mul_ps(_mm_cvtepi32_ps(acc[j]), _mm_loadu_ps(l->scales + n + 4 * (size_t)j)));
				const __m128i lo = _mm_adds_epi16(_mm_packs_epi32(acc[0], acc[1]), top), hi = _mm_adds_epi16(_mm_packs_epi32(acc[2], acc[3]), top);
				_mm_storeu_si128((__m128i *)(out + n), _mm_packus_epi16(lo, hi));
			}
		}
}

static void depthwise(const vigil_layer *l, uint8_t *arena) {
	if (three(l)) depthwise3(l, arena);
	else depthwise_any(l, arena);
}

// whole rounds v / scale half to even, within -1024 and 1024. The product with the inverse is less than 2^-12 off there, so it
// rounds as the quotient does but near a half, where that is computed.
INLINE __m512i whole(__m512 v, __m512 scale, __m512 inverse) {
	const __m512 low = _mm512_set1_ps(-1024), high = _mm512_set1_ps(1024);
	const __m512 product = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(v, inverse), low), high);
	const __m512 rounded = _mm512_roundscale_ps(product, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	const __m512 off = _mm512_abs_ps(_mm512_sub_ps(product, rounded));
	if (__builtin_expect(_mm512_cmp_ps_mask(off, _mm512_set1_ps(0.5f - 0x1p-12f), _CMP_GE_OQ), 0))
		return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(_mm512_div_ps(v, scale), low), high));
	return _mm512_cvtps_epi32(rounded);
}

// quantize makes pixels of planes, sixteen at a time.
static void quantize(const vigil_layer *l, const float *planes, uint8_t *arena) {
	const int b = l->block;
	const size_t size = (size_t)l->in_h * (size_t)l->in_w, c = (size_t)l->out_c;
	const __m512 scale = _mm512_set1_ps(l->scale), inverse = _mm512_set1_ps(1 / l->scale);
	const __m512i zero = _mm512_set1_epi32(l->out_zero), none = _mm512_setzero_si512(), top = _mm512_set1_epi32(255);
	const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
	uint8_t *out = arena + l->out;
	for (int y = 0; y < l->out_h; y++)
		for (int x = 0; x < l->out_w; x += 16, out += c * (size_t)(l->out_w - x + 16 < 16 ? l->out_w - x + 16 : 16)) {
			const int n = l->out_w - x < 16 ? l->out_w - x : 16;
			uint8_t bytes[16][16];  // a channel of 16 pixels
			memset(bytes, 0, sizeof bytes);
			for (int ch = 0; ch < l->in_c; ch++)
				for (int dy = 0; dy < b; dy++) {
					const float *row = planes + (size_t)ch * size + (size_t)(y * b + dy) * (size_t)l->in_w + (size_t)(x * b);
					const int left = n * b;
					const __m512 lo = _mm512_maskz_loadu_ps(left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1), row);
					const __m512 hi = left > 16 ? _mm512_maskz_loadu_ps(left >= 32 ? 0xffff : (__mmask16)((1u << (left - 16)) - 1), row + 16) : _mm512_setzero_ps();
					for (int dx = 0; dx < b; dx++) {
						const __m512 v = b == 1 ? lo : _mm512_permutex2var_ps(lo, dx ? odd : even, hi);
						__m512i q = whole(v, scale, inverse);
						q = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(q, zero), none), top);
						_mm_storeu_si128((__m128i *)bytes[(dy * b + dx) * l->in_c + ch], _mm512_cvtusepi32_epi8(q));
					}
				}
			__m128i t[16], u[16];  // a transposition of 16 x 16 bytes
			for (int i = 0; i < 16; i++) t[i] = _mm_loadu_si128((const __m128i *)bytes[i]);
			for (int i = 0; i < 8; i++) u[2 * i] = _mm_unpacklo_epi8(t[i], t[i + 8]), u[2 * i + 1] = _mm_unpackhi_epi8(t[i], t[i + 8]);
			for (int i = 0; i < 8; i++) t[2 * i] = _mm_unpacklo_epi8(u[i], u[i + 8]), t[2 * i + 1] = _mm_unpackhi_epi8(u[i], u[i + 8]);
			for (int i = 0; i < 8; i++) u[2 * i] = _mm_unpacklo_epi8(t[i], t[i + 8]), u[2 * i + 1] = _mm_unpackhi_epi8(t[i], t[i + 8]);
			for (int i = 0; i < 8; i++) t[2 * i] = _mm_unpacklo_epi8(u[i], u[i + 8]), t[2 * i + 1] = _mm_unpackhi_epi8(u[i], u[i + 8]);
			for (int i = 0; i < n; i++) _mm_storeu_si128((__m128i *)(out + (size_t)i * c), t[i]);
		}
}

static void add(const vigil_layer *l, uint8_t *arena) {
	const size_t size = (size_t)l->out_h * (size_t)l->out_w * (size_t)l->out_c;
	for (size_t i = 0; i < size; i += 64)
		_mm512_storeu_si512(arena + l->out + i, sum4(l, _mm512_loadu_si512(arena + l->in + i), _mm512_loadu_si512(arena + l->in2 + i)));
}

// max2 is the greatest of 2 x 2 pixels of 64 channels at a time, or of 16: then four pixels of the result come of eight lanes.
INLINE void max2(const uint8_t *upper, const uint8_t *lower, uint8_t *out, size_t c, int out_w) {
	const __m512i even = _mm512_set_epi64(13, 12, 9, 8, 5, 4, 1, 0), odd = _mm512_set_epi64(15, 14, 11, 10, 7, 6, 3, 2);
	if (c == 16) {
		for (int x = 0; x < out_w; x += 4, upper += 128, lower += 128, out += 64) {
			const __m512i a = _mm512_max_epu8(_mm512_loadu_si512(upper), _mm512_loadu_si512(lower));
			const __m512i b = out_w - x > 2 ? _mm512_max_epu8(_mm512_loadu_si512(upper + 64), _mm512_loadu_si512(lower + 64)) : a;
			_mm512_storeu_si512(out, _mm512_max_epu8(_mm512_permutex2var_epi64(a, even, b), _mm512_permutex2var_epi64(a, odd, b)));
		}
		return;
	}
	for (int x = 0; x < out_w; x++, upper += 2 * c, lower += 2 * c, out += c)
		for (size_t n = 0; n < c; n += 64) {
			const __m512i left = _mm512_max_epu8(_mm512_loadu_si512(upper + n), _mm512_loadu_si512(lower + n));
			const __m512i right = _mm512_max_epu8(_mm512_loadu_si512(upper + c + n), _mm512_loadu_si512(lower + c + n));
			_mm512_storeu_si512(out + n, _mm512_max_epu8(left, right));
		}
}

static void greatest(const vigil_layer *l, uint8_t *arena) {
	const size_t c = (size_t)l->in_c, line = (size_t)l->in_w * c;
	const int b = l->block;
	for (int y = 0; y < l->out_h; y++) {
		const uint8_t *in = arena + l->in + (size_t)(y * b) * line;
		uint8_t *out = arena + l->out + (size_t)y * (size_t)l->out_w * c;
		if (b == 2 && (c == 16 || c % 64 == 0)) {
			max2(in, in + line, out, c, l->out_w);
			continue;
		}
		for (int x = 0; x < l->out_w; x++, in += (size_t)b * c, out += c)
			for (size_t n = 0; n < c; n += 16) {
				__m128i most = _mm_setzero_si128();
				for (int dy = 0; dy < b; dy++)
					for (int dx = 0; dx < b; dx++) most = _mm_max_epu8(most, _mm_loadu_si128((const __m128i *)(in + (size_t)dy * line + (size_t)dx * c + n)));
				_mm_storeu_si128((__m128i *)(out + n), most);
			}
	}
}

static void repeat(const vigil_layer *l, uint8_t *arena) {
	const size_t c = (size_t)l->in_c;
	uint8_t *out = arena + l->out;
	for (int y = 0; y < l->out_h; y++)
		for (int x = 0; x < l->out_w; x++, out += c) memcpy(out, arena + l->in + ((size_t)(y / l->block) * (size_t)l->in_w + (size_t)(x / l->block)) * c, c);
}

static void look_up(const vigil_layer *l, const uint8_t *arena, float *out) {
	const size_t pixels = (size_t)l->in_h * (size_t)l->in_w, c = (size_t)l->out_c;
	const uint8_t *in = arena + l->in;
	for (size_t p = 0; p < pixels; p++, in += l->in_c)
		for (size_t n = 0; n < c; n++) out[l->planes ? n * pixels + p : p * c + n] = l->table[in[n]];
}

size_t vigil_int8_run(const vigil_layer *layers, size_t count, uint8_t *arena, float *const *floats, const int32_t *stop) {
	for (size_t i = 0; i < count; i++) {
		const vigil_layer *l = layers + i;
		if (__atomic_load_n(stop, __ATOMIC_RELAXED)) return i;
		switch (l->kind) {
		case VIGIL_QUANTIZE: quantize(l, floats[l->in], arena); break;
		case VIGIL_CONV: conv(l, arena); break;
		case VIGIL_DEPTHWISE: depthwise(l, arena); break;
		case VIGIL_ADD: add(l, arena); break;
		case VIGIL_MAX: greatest(l, arena); break;
		case VIGIL_REPEAT: repeat(l, arena); break;
		case VIGIL_LOOK_UP: look_up(l, arena, floats[l->out]); break;
		}
	}
	return count;
}

size_t vigil_int8_scratch(const vigil_layer *l) { return l->kind == VIGIL_DEPTHWISE && three(l) ? 4 * plane3(l) : 0; }

#pragma GCC pop_options

// place says which place a channel of a block of 64 has: narrow4 puts what stands there into the channel's.
static inline int place(int channel) { return channel / 64 * 64 + channel % 16 / 4 * 16 + channel % 64 / 16 * 4 + channel % 4; }

// spread gives bias and scales their places.
static void spread(vigil_layer *l, const int32_t *bias, const float *scales, int real_out, int whole) {
	for (int o = 0; o < l->out_c; o++) {
		const int at = o < whole ? place(o) : o;
		l->bias[at] = o < real_out ? bias[o] : 0;
		l->scales[at] = o < real_out ? scales[o] : 0;
	}
}

static void pack_conv(vigil_layer *l, const int8_t *w, int real_in, int real_out) {
	const int positions = l->kernel_h * l->kernel_w, whole = l->out_c / 64 * 64;
	for (int o = 0; o < real_out; o++) {
		const int first = o < whole ? o / 64 * 64 : whole, width = o < whole ? 64 : l->out_c - whole;
		const int at = o < whole ? place(o) - first : o - first;
		int8_t *block = l->weights + (size_t)first * (size_t)positions * (size_t)l->in_c;
		for (int i = 0; i < real_in; i++)
			for (int t = 0; t < positions; t++)
				block[((size_t)t * (size_t)(l->in_c / 4) + (size_t)(i / 4)) * (size_t)(4 * width) + (size_t)(4 * at + i % 4)] = w[((size_t)o * (size_t)real_in + (size_t)i) * (size_t)positions + (size_t)t];
	}
}

// pack_depthwise3 lays a column of the kernel as quadruples, the fourth 0. Fewer than 64 channels are repeated.
static void pack_depthwise3(vigil_layer *l, const int8_t *w, const int32_t *bias, const float *scales, int real_out) {
	const int c = l->out_c < 64 ? 64 : l->out_c;
	for (int o = 0; o < c; o++) {
		const int from = o % l->out_c, at = place(o);
		l->bias[at] = from < real_out ? bias[from] : 0;
		l->scales[at] = from < real_out ? scales[from] : 0;
		for (int col = 0; col < 3 && from < real_out; col++)
			for (int row = 0; row < 3; row++) l->weights[o / 64 * 768 + col * 256 + at % 64 * 4 + row] = w[from * 9 + row * 3 + col];
	}
}

static void pack_depthwise(vigil_layer *l, const int8_t *w, int real_out) {
	const int positions = l->kernel_h * l->kernel_w, quads = (positions + 3) / 4;
	for (int o = 0; o < real_out; o++)
		for (int t = 0; t < positions; t++) l->weights[(size_t)(o / 16 * 64 * quads + t / 4 * 64 + o % 16 * 4 + t % 4)] = w[o * positions + t];
}

// offsets lists, for every position of the kernel, the pixel under it for each pixel of the result.
static int offsets(vigil_layer *l) {
	if (l->kernel_h == 1 && l->kernel_w == 1 && l->stride_h == 1 && l->stride_w == 1 && l->pad_top == 0 && l->pad_left == 0 && l->out_h == l->in_h && l->out_w == l->in_w)
		return 1;
	const size_t positions = (size_t)l->kernel_h * (size_t)l->kernel_w, pixels = (size_t)l->out_h * (size_t)l->out_w;
	int32_t *at = l->from = malloc(positions * pixels * sizeof *at);
	if (!at) return 0;
	for (int t = 0; t < (int)positions; t++)
		for (int y = 0; y < l->out_h; y++)
			for (int x = 0; x < l->out_w; x++) {
				const int row = row_of(l, y, t), col = col_of(l, x, t);
				*at++ = row < 0 || row >= l->in_h || col < 0 || col >= l->in_w ? -1 : (row * l->in_w + col) * l->in_c;
			}
	return 1;
}

int vigil_int8_pack(vigil_layer *l, const int8_t *weights, const int32_t *bias, const float *scales, int real_in, int real_out) {
	const size_t channels = l->out_c < 64 ? 64 : (size_t)l->out_c, positions = (size_t)l->kernel_h * (size_t)l->kernel_w;
	const size_t each = l->kind == VIGIL_CONV ? positions * (size_t)l->in_c : three(l) ? 12 : (positions + 3) / 4 * 4;
	l->weights_size = (channels * each + 63) / 64 * 64;
	l->weights = aligned_alloc(64, l->weights_size);
	l->bias = aligned_alloc(64, channels * 4);
	l->scales = aligned_alloc(64, channels * 4);
	if (!l->weights || !l->bias || !l->scales) return 0;
	memset(l->weights, 0, l->weights_size);
	if (l->kind == VIGIL_DEPTHWISE && three(l)) {
		pack_depthwise3(l, weights, bias, scales, real_out);
		return 1;
	}
	if (l->kind == VIGIL_DEPTHWISE) {
		pack_depthwise(l, weights, real_out);
		spread(l, bias, scales, real_out, 0);
		return 1;
	}
	pack_conv(l, weights, real_in, real_out);
	spread(l, bias, scales, real_out, l->out_c / 64 * 64);
	return offsets(l);
}

#else

int vigil_int8_have(void) { return 0; }
int vigil_int8_pack(vigil_layer *l, const int8_t *weights, const int32_t *bias, const float *scales, int real_in, int real_out) {
	(void)l, (void)weights, (void)bias, (void)scales, (void)real_in, (void)real_out;
	return 0;
}
size_t vigil_int8_scratch(const vigil_layer *l) { return (void)l, 0; }
size_t vigil_int8_run(const vigil_layer *layers, size_t count, uint8_t *arena, float *const *floats, const int32_t *stop) {
	(void)layers, (void)count, (void)arena, (void)floats, (void)stop;
	return 0;
}

#endif

int vigil_int8_table(vigil_layer *l, const float *table) {
	l->table = aligned_alloc(64, 1024);
	if (l->table) memcpy(l->table, table, 1024);
	return l->table != NULL;
}

void vigil_int8_free(vigil_layer *layers, size_t count) {
	for (size_t i = 0; i < count; i++) {
		vigil_layer *l = layers + i;
		if (l->weights) explicit_bzero(l->weights, l->weights_size);
		free(l->weights), free(l->bias), free(l->scales), free(l->from), free(l->table);
	}
	free(layers);
}
