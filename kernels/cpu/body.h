// The kernels, once for each instruction set: NAME makes their names. The vectors of four are a pixel and a spare, or four
// neighbours of one channel; the long loops are left to the compiler.

typedef float NAME(v4) __attribute__((vector_size(16)));
#define v4 NAME(v4)

static inline v4 NAME(load)(const float *p) {
	v4 v;
	memcpy(&v, p, sizeof v);
	return v;
}

static inline void NAME(store)(float *p, v4 v) { memcpy(p, &v, sizeof v); }

static inline v4 NAME(splat)(float f) { return (v4){f, f, f, f}; }

// NAME(pixel) reads four bytes. GCC takes them apart where the instruction set has one step for it.
static inline v4 NAME(pixel)(const uint8_t *p) {
#ifdef WIDEN
	int32_t four;
	memcpy(&four, p, sizeof four);
	return (v4)WIDEN(four);
#else
	return (v4){p[0], p[1], p[2], p[3]};
#endif
}

// NAME(interleave) puts four pixels of three channels side by side: twelve floats.
static inline void NAME(interleave)(float *out, v4 r, v4 g, v4 b) {
	const v4 low = SHUFFLE(r, g, 0, 4, 1, 5), high = SHUFFLE(r, g, 2, 6, 3, 7);
	NAME(store)(out, SHUFFLE(low, b, 0, 1, 4, 2));
	NAME(store)(out + 4, SHUFFLE(SHUFFLE(low, b, 3, 5, 3, 5), high, 0, 1, 4, 5));
	NAME(store)(out + 8, SHUFFLE(b, high, 2, 6, 7, 3));
}

// NAME(planar) turns four pixels into four values of each channel.
static inline void NAME(planar)(const v4 pixel[4], v4 channel[3]) {
	const v4 rg0 = SHUFFLE(pixel[0], pixel[1], 0, 4, 1, 5), rg1 = SHUFFLE(pixel[2], pixel[3], 0, 4, 1, 5);
	const v4 b0 = SHUFFLE(pixel[0], pixel[1], 2, 6, 2, 6), b1 = SHUFFLE(pixel[2], pixel[3], 2, 6, 2, 6);
	channel[0] = SHUFFLE(rg0, rg1, 0, 1, 4, 5);
	channel[1] = SHUFFLE(rg0, rg1, 2, 3, 6, 7);
	channel[2] = SHUFFLE(b0, b1, 0, 1, 4, 5);
}

enum { NAME(BLOCK) = 64 };

// NAME(yuv) converts n <= BLOCK pixels of BT.601; see kernels.Image.
static inline void NAME(yuv)(const int32_t *luma, const int32_t *u, const int32_t *v, int full, int32_t *r, int32_t *g, int32_t *b, int n) {
	const int32_t scale = full ? 65536 : 76309, base = full ? 0 : 16;
	const int32_t rv = full ? 91881 : 104597, gu = full ? 22554 : 25675, gv = full ? 46802 : 53279, bu = full ? 116130 : 132201;
	for (int i = 0; i < n; i++) {
		const int32_t c = (luma[i] - base) * scale + (1 << 15), d = u[i] - 128, e = v[i] - 128;
		const int32_t x = (c + rv * e) >> 16, y = (c - gu * d - gv * e) >> 16, z = (c + bu * d) >> 16;
		r[i] = x < 0 ? 0 : x > 255 ? 255 : x;
		g[i] = y < 0 ? 0 : y > 255 ? 255 : y;
		b[i] = z < 0 ? 0 : z > 255 ? 255 : z;
	}
}

// NAME(block) gives n <= BLOCK pixels of a row from an even x on as three channels. Pixels come in pairs; of an odd number the
// last is one more than asked.
static inline void NAME(block)(const vigil_image *im, int x, int y, int n, int32_t *restrict r, int32_t *restrict g, int32_t *restrict b) {
	int32_t luma[NAME(BLOCK)], u[NAME(BLOCK)], v[NAME(BLOCK)];
	const int pairs = (n + 1) / 2;
	const uint8_t *restrict row = im->plane[0] + y * im->stride[0];
	if (im->format == VIGIL_NV12) {
		const uint8_t *restrict chroma = im->plane[1] + (y / 2) * im->stride[1] + x;
		for (int i = 0; i < n; i++) luma[i] = row[x + i];
		for (int i = 0; i < pairs; i++) {
			u[2 * i] = u[2 * i + 1] = chroma[2 * i];
			v[2 * i] = v[2 * i + 1] = chroma[2 * i + 1];
		}
	} else {
		row += 2 * x;
		for (int i = 0; i < pairs; i++) {
			luma[2 * i] = row[4 * i], luma[2 * i + 1] = row[4 * i + 2];
			u[2 * i] = u[2 * i + 1] = row[4 * i + 1];
			v[2 * i] = v[2 * i + 1] = row[4 * i + 3];
		}
	}
	NAME(yuv)(luma, u, v, im->full_range, r, g, b, n);
}

static void NAME(rgb)(uint8_t *dst, const vigil_image *im, int x0, int y0, int w, int h) {
	int32_t r[NAME(BLOCK)], g[NAME(BLOCK)], b[NAME(BLOCK)];
	for (int y = 0; y < h; y++) {
		uint8_t *to = dst + (size_t)y * 3 * w;
		const uint8_t *row = im->plane[0] + (y0 + y) * im->stride[0];
		if (im->format == VIGIL_RGB24) {
			memcpy(to, row + 3 * x0, 3 * (size_t)w);
			continue;
		}
		if (im->format == VIGIL_GRAY8) {
			for (int x = 0; x < w; x++) to[3 * x] = to[3 * x + 1] = to[3 * x + 2] = row[x0 + x];
			continue;
		}
		const int odd = x0 & 1;
		for (int x = -odd; x < w; x += NAME(BLOCK)) {
			const int n = w - x < NAME(BLOCK) ? w - x : NAME(BLOCK);
			NAME(block)(im, x0 + x, y0 + y, n, r, g, b);
			for (int i = x < 0; i < n; i++) to[3 * (x + i)] = (uint8_t)r[i], to[3 * (x + i) + 1] = (uint8_t)g[i], to[3 * (x + i) + 2] = (uint8_t)b[i];
		}
	}
}

// NAME(row) gives a row as interleaved floats and four more, which are 0.
static void NAME(row)(float *restrict out, const vigil_image *im, int y) {
	const int w = im->width;
	const uint8_t *restrict row = im->plane[0] + y * im->stride[0];
	if (im->format == VIGIL_RGB24) {
		for (int i = 0; i < 3 * w; i++) out[i] = row[i];
	} else if (im->format == VIGIL_GRAY8) {
		for (int x = 0; x < w; x++) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = row[x];
	} else {
		int32_t r[NAME(BLOCK)], g[NAME(BLOCK)], b[NAME(BLOCK)];
		for (int x = 0; x < w; x += NAME(BLOCK)) {
			const int n = w - x < NAME(BLOCK) ? w - x : NAME(BLOCK);
			NAME(block)(im, x, y, n, r, g, b);
			float rf[NAME(BLOCK)], gf[NAME(BLOCK)], bf[NAME(BLOCK)], *to = out + 3 * x;
			for (int i = 0; i < n; i++) rf[i] = (float)r[i], gf[i] = (float)g[i], bf[i] = (float)b[i];
			int i = 0;
			for (; i + 4 <= n; i += 4) NAME(interleave)(to + 3 * i, NAME(load)(rf + i), NAME(load)(gf + i), NAME(load)(bf + i));
			for (; i < n; i++) to[3 * i] = rf[i], to[3 * i + 1] = gf[i], to[3 * i + 2] = bf[i];
		}
	}
	memset(out + 3 * w, 0, 4 * sizeof *out);
}

// NAME(across) filters a row of interleaved floats into three rows, one a channel, plane floats apart.
static void NAME(across)(float *out, size_t plane, const float *row, const vigil_axis *a) {
	const int width = a->width;
	for (int x = 0; x < a->outputs; x += 4) {
		v4 s[4];
		const int n = a->outputs - x < 4 ? a->outputs - x : 4;
		for (int k = 0; k < 4; k++) {
			const int i = x + (k < n ? k : 0);
			const float *in = row + 3 * a->first[i], *taps = a->taps + (size_t)i * width;
			s[k] = NAME(splat)(taps[0]) * NAME(load)(in);
			for (int t = 1; t < width; t++) s[k] += NAME(splat)(taps[t]) * NAME(load)(in + 3 * t);
		}
		v4 channel[3];
		NAME(planar)(s, channel);
		for (int c = 0; c < 3; c++)
			if (n == 4)
				NAME(store)(out + c * plane + x, channel[c]);
			else
				memcpy(out + c * plane + x, &channel[c], n * sizeof *out);
	}
}

#ifdef WIDEN
// NAME(spans) reports whether any LANES neighbouring outputs look at no more than LANES neighbouring inputs: every row that is
// enlarged by a seventh and more, and most others.
static int NAME(spans)(const vigil_axis *a, int inputs) {
	if (a->width != 2 || inputs < LANES) return 0;
	for (int x = 0; x + LANES <= a->outputs; x += LANES)
		if (a->first[x + LANES - 1] + 2 - a->first[x] > LANES) return 0;
	return 1;
}

// NAME(split) gives a row of bytes as three rows of floats, one a channel: eight pixels at a time lie in two registers.
static void NAME(split)(float *restrict out, const uint8_t *restrict row, int w) {
	const __m128i low[3] = {_mm_setr_epi8(0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
	                        _mm_setr_epi8(1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
	                        _mm_setr_epi8(2, 5, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)};
	const __m128i high[3] = {_mm_setr_epi8(-1, -1, -1, -1, -1, -1, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1),
	                         _mm_setr_epi8(-1, -1, -1, -1, -1, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1),
	                         _mm_setr_epi8(-1, -1, -1, -1, -1, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1)};
	int x = 0;
	for (; x + 8 <= w; x += 8) {
		const __m128i a = _mm_loadu_si128((const __m128i *)(row + 3 * x)), b = _mm_loadu_si128((const __m128i *)(row + 3 * x + 8));
		for (int c = 0; c < 3; c++) {
			const __m128i v = _mm_or_si128(_mm_shuffle_epi8(a, low[c]), _mm_shuffle_epi8(b, high[c]));
			_mm256_storeu_ps(out + (size_t)c * w + x, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)));
		}
	}
	for (; x < w; x++)
		for (int c = 0; c < 3; c++) out[(size_t)c * w + x] = row[3 * x + c];
}

// NAME(plan) takes the table of an axis apart for NAME(enlarge): for each LANES outputs the first input of the register that they
// look at, LANES places in it, and two times LANES weights. An axis is planned once and used for every row.
static void NAME(plan)(int32_t *restrict out, const vigil_axis *a, int w) {
	for (int x = 0; x + LANES <= a->outputs; x += LANES, out += 4 * LANES) {
		const int64_t base = a->first[x] < w - LANES ? a->first[x] : w - LANES;
		out[0] = (int32_t)base;
		for (int i = 0; i < LANES; i++) {
			out[LANES + i] = (int32_t)(a->first[x + i] - base);
			memcpy(out + 2 * LANES + i, a->taps + 2 * (x + i), sizeof *a->taps);
			memcpy(out + 3 * LANES + i, a->taps + 2 * (x + i) + 1, sizeof *a->taps);
		}
	}
}

// NAME(enlarge) filters a row of bytes across into three rows, one a channel: each register of inputs is looked at by as many
// outputs. line is a work area of three times the width.
static void NAME(enlarge)(float *restrict out, const uint8_t *restrict row, int w, const vigil_axis *a, const int32_t *restrict plan, float *restrict line) {
	NAME(split)(line, row, w);
	const int n = a->outputs;
	int x = 0;
	for (; x + LANES <= n; x += LANES, plan += 4 * LANES) {
		const VECI left = VLOADI(plan + LANES), right = VNEXT(left);
		const VEC wl = VLOAD((const float *)(plan + 2 * LANES)), wr = VLOAD((const float *)(plan + 3 * LANES));
		const float *from = line + plan[0];
		for (int c = 0; c < 3; c++) {
			const VEC in = VLOAD(from + (size_t)c * w);
			VSTORE(out + (size_t)c * n + x, VFMA(VPICK(in, right), wr, VMUL(VPICK(in, left), wl)));
		}
	}
	for (; x < n; x++)
		for (int c = 0; c < 3; c++) {
			const float *in = line + (size_t)c * w + a->first[x];
			out[(size_t)c * n + x] = a->taps[2 * x] * in[0] + a->taps[2 * x + 1] * in[1];
		}
}
#endif

// NAME(down) sums rows of a ring, weighted: out = (sum - mean) * inv. The scale goes into the weights.
static void NAME(down)(float *restrict out, const float *const *rows, const float *taps, int width, int n, float mean, float inv) {
	const float *restrict a = rows[0], *restrict b = rows[width > 1];
	const float wa = taps[0] * inv, wb = width > 1 ? taps[1] * inv : 0, base = -mean * inv;
	if (base == 0)
		for (int i = 0; i < n; i++) out[i] = wa * a[i] + wb * b[i];
	else
		for (int i = 0; i < n; i++) out[i] = wa * a[i] + (wb * b[i] + base);
	for (int t = 2; t < width; t++) {
		const float *restrict in = rows[t];
		const float w = taps[t] * inv;
		if (w == 0) continue;
		for (int i = 0; i < n; i++) out[i] += w * in[i];
	}
}

static void NAME(fill)(float *out, size_t n, float v) {
	for (size_t i = 0; i < n; i++) out[i] = v;
}

// What grows in height is filtered across first, once a source row, and what shrinks is filtered down first, so that the
// costlier direction has the less to do. A ring holds the source rows that the next output may still need.
static void NAME(letterbox)(float *dst, int dst_w, int dst_h, const vigil_image *im, const vigil_axis *cols, const vigil_axis *rows,
                            const float *mean, const float *inv, int bgr, float *scratch) {
	const int out_w = cols->outputs, out_h = rows->outputs, width = rows->width, across_first = out_h >= im->height;
	const size_t plane = (size_t)dst_w * dst_h, line = vigil_line(im->width, out_w);
	float *one = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63), *ring = one + line;  // rows begin at cache lines
	const float *in[MOST_TAPS];
	int64_t have = -1;  // the latest source row in the ring
#ifdef WIDEN
	const int spans = across_first && im->format == VIGIL_RGB24 && NAME(spans)(cols, im->width);
	int32_t *plan = (int32_t *)(ring + (size_t)width * line);
	if (spans) NAME(plan)(plan, cols, im->width);
#endif
	for (int y = 0; y < out_h; y++) {
		const int64_t first = rows->first[y];
		const float *taps = rows->taps + (size_t)y * width;
		for (int64_t s = have < first ? first : have + 1; s < first + width; s++, have = s - 1) {
			float *to = ring + (size_t)(s % width) * line;
			if (!across_first) {
				NAME(row)(to, im, (int)s);
				continue;
			}
#ifdef WIDEN
			if (spans) {
				NAME(enlarge)(to, im->plane[0] + s * im->stride[0], im->width, cols, plan, one);
				continue;
			}
#endif
			NAME(row)(one, im, (int)s);
			NAME(across)(to, out_w, one, cols);
		}
		for (int c = 0; c < 3; c++) {
			const int ch = bgr ? 2 - c : c;
			float *to = dst + ch * plane + (size_t)y * dst_w;
			if (across_first) {
				for (int t = 0; t < width; t++) in[t] = ring + (size_t)((first + t) % width) * line + (size_t)c * out_w;
				NAME(down)(to, in, taps, width, out_w, mean[ch], inv[ch]);
			}
			NAME(fill)(to + out_w, dst_w - out_w, -mean[ch] * inv[ch]);
		}
		if (across_first) continue;
		for (int t = 0; t < width; t++) in[t] = ring + (size_t)((first + t) % width) * line;
		NAME(down)(one, in, taps, width, 3 * im->width + 4, 0, 1);
		float *planes = ring + (size_t)width * line;
		NAME(across)(planes, out_w, one, cols);
		for (int c = 0; c < 3; c++) {
			const int ch = bgr ? 2 - c : c;
			float *restrict to = dst + ch * plane + (size_t)y * dst_w;
			const float *restrict from = planes + (size_t)c * out_w;
			const float m = mean[ch], s = inv[ch];
			for (int x = 0; x < out_w; x++) to[x] = (from[x] - m) * s;
		}
	}
	for (int ch = 0; ch < 3; ch++) NAME(fill)(dst + ch * plane + (size_t)out_h * dst_w, (size_t)(dst_h - out_h) * dst_w, -mean[ch] * inv[ch]);
}

// NAME(edge) is a bilinear sample at the edge of the picture, beyond which it is black.
static v4 NAME(edge)(const uint8_t *rgb, ptrdiff_t stride, int width, int height, float x, float y) {
	v4 sum = NAME(splat)(0);
	if (!(x > -1 && y > -1 && x < (float)width && y < (float)height)) return sum;
	const int x0 = (int)floorf(x), y0 = (int)floorf(y);
	const float fx = x - (float)x0, fy = y - (float)y0;
	for (int j = 0; j < 4; j++) {
		const int px = x0 + (j & 1), py = y0 + (j >> 1);
		if (px < 0 || py < 0 || px >= width || py >= height) continue;
		const uint8_t *p = rgb + py * stride + 3 * px;
		const float w = (j & 1 ? fx : 1 - fx) * (j >> 1 ? fy : 1 - fy);
		sum += NAME(splat)(w) * (v4){p[0], p[1], p[2], 0};
	}
	return sum;
}

static inline v4 NAME(sample)(const uint8_t *rgb, ptrdiff_t stride, int width, int height, float x, float y) {
	// A pixel is read as four bytes, so the last but one column is the last that is not the edge.
	if (!(x >= 0 && y >= 0 && x < (float)(width - 2) && y < (float)(height - 1))) return NAME(edge)(rgb, stride, width, height, x, y);
	const int x0 = (int)x, y0 = (int)y;
	const v4 fx = NAME(splat)(x - (float)x0), fy = NAME(splat)(y - (float)y0);
	const uint8_t *p = rgb + y0 * stride + 3 * x0, *q = p + stride;
	const v4 top = NAME(pixel)(p) + fx * (NAME(pixel)(p + 3) - NAME(pixel)(p));
	const v4 bottom = NAME(pixel)(q) + fx * (NAME(pixel)(q + 3) - NAME(pixel)(q));
	return top + fy * (bottom - top);
}

#ifdef WIDEN
// NAME(inside) reports whether a pixel's sample needs no look at the edges, with room for rounding.
static inline int NAME(inside)(int width, int height, const float *m, float x, float y) {
	const float sx = m[0] * x + m[1] * y + m[2], sy = m[3] * x + m[4] * y + m[5];
	return sx >= 0.01f && sy >= 0.01f && sx < (float)(width - 2) - 0.01f && sy < (float)(height - 1) - 0.01f;
}

// NAME(places) are where eight neighbours, x + 0..7 at height y, lie in a picture: the first byte of the upper left pixel, and how
// far they are from it.
typedef struct {
	int32_t from[8] __attribute__((aligned(32)));
	float x[8] __attribute__((aligned(32))), y[8] __attribute__((aligned(32)));
} NAME(places);

static inline void NAME(find)(NAME(places) *p, int32_t stride, const float *m, float x, float y) {
	const __m256 at = _mm256_add_ps(_mm256_set1_ps(x), _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7));
	const __m256 sx = _mm256_fmadd_ps(_mm256_set1_ps(m[0]), at, _mm256_set1_ps(m[1] * y + m[2]));
	const __m256 sy = _mm256_fmadd_ps(_mm256_set1_ps(m[3]), at, _mm256_set1_ps(m[4] * y + m[5]));
	const __m256i x0 = _mm256_cvttps_epi32(sx), y0 = _mm256_cvttps_epi32(sy);
	_mm256_store_si256((__m256i *)p->from, _mm256_add_epi32(_mm256_mullo_epi32(y0, _mm256_set1_epi32(stride)), _mm256_add_epi32(x0, _mm256_add_epi32(x0, x0))));
	_mm256_store_ps(p->x, _mm256_sub_ps(sx, _mm256_cvtepi32_ps(x0)));
	_mm256_store_ps(p->y, _mm256_sub_ps(sy, _mm256_cvtepi32_ps(y0)));
}

// NAME(look) samples one of the places, which lies inside. Both pixels of a row are read at once, eight bytes of which two are
// spare: the picture has them, see inside.
static inline v4 NAME(look)(const NAME(places) *at, int i, const uint8_t *rgb, int32_t stride) {
	const uint8_t *p = rgb + at->from[i];
	const __m256 upper = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
	const __m256 lower = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + stride))));
	const __m256 both = _mm256_fmadd_ps(_mm256_sub_ps(lower, upper), _mm256_broadcast_ss(at->y + i), upper);
	const __m128 left = _mm256_castps256_ps128(both), right = _mm256_castps256_ps128(_mm256_permutevar8x32_ps(both, _mm256_setr_epi32(3, 4, 5, 6, 3, 4, 5, 6)));
	return (v4)_mm_fmadd_ps(_mm_sub_ps(right, left), _mm_broadcast_ss(at->x + i), left);
}

// NAME(clear) reports whether all samples of n pixels of the crop from x on lie inside.
static inline int NAME(clear)(int width, int height, const float *m, float most, int x, int n, int y) {
	const float x0 = (float)x - most, x1 = (float)(x + n - 1) + most, y0 = (float)y - most, y1 = (float)y + most;
	return NAME(inside)(width, height, m, x0, y0) && NAME(inside)(width, height, m, x1, y0) && NAME(inside)(width, height, m, x0, y1) && NAME(inside)(width, height, m, x1, y1);
}

#endif

static void NAME(warp)(float *dst, int dst_w, int dst_h, const uint8_t *rgb, ptrdiff_t stride, int width, int height,
                       const float *m, int k, const float *mean, const float *inv, int bgr) {
	const size_t plane = (size_t)dst_w * dst_h;
	const float weight = 1.0f / (float)(k * k);
	float *const channel[3] = {dst + (bgr ? 2 : 0) * plane, dst + plane, dst + (bgr ? 0 : 2) * plane};
	const v4 bias = {mean[bgr ? 2 : 0], mean[1], mean[bgr ? 0 : 2], 0}, scale = {inv[bgr ? 2 : 0], inv[1], inv[bgr ? 0 : 2], 0};
	const v4 gain = NAME(splat)(weight) * scale, base = -bias * scale;
	float step[8];  // the samples' distance from the centre of their pixel
	for (int i = 0; i < k; i++) step[i] = ((float)i + 0.5f) / (float)k - 0.5f;
	for (int y = 0; y < dst_h; y++) {
		const size_t row = (size_t)y * dst_w;
#ifdef WIDEN
		const int small = stride <= INT32_MAX / height, whole = NAME(clear)(width, height, m, -step[0], 0, dst_w, y);
#endif
		for (int x = 0; x < dst_w;) {
			int n = dst_w - x < 8 ? dst_w - x : 8;
#ifdef WIDEN
			if (small && n == 8 && (whole || NAME(clear)(width, height, m, -step[0], x, 8, y))) {
				NAME(places) at[64];  // of k x k samples
				for (int j = 0, s = 0; j < k; j++)
					for (int i = 0; i < k; i++, s++) NAME(find)(at + s, (int32_t)stride, m, (float)x + step[i], (float)y + step[j]);
				for (int half = 0; half < 8; half += 4) {
					v4 pixel[4], planes[3];
					for (int i = 0; i < 4; i++) pixel[i] = NAME(look)(at, half + i, rgb, (int32_t)stride);
					for (int s = 1; s < k * k; s++)
						for (int i = 0; i < 4; i++) pixel[i] += NAME(look)(at + s, half + i, rgb, (int32_t)stride);
					NAME(planar)(pixel, planes);
					for (int c = 0; c < 3; c++) NAME(store)(channel[c] + row + x + half, planes[c] * NAME(splat)(gain[c]) + NAME(splat)(base[c]));
				}
				x += 8;
				continue;
			}
#endif
			for (; n > 0; n--, x++) {
				v4 sum = NAME(splat)(0);
				for (int j = 0; j < k; j++)
					for (int i = 0; i < k; i++) {
						const float fx = (float)x + step[i], fy = (float)y + step[j];
						sum += NAME(sample)(rgb, stride, width, height, m[0] * fx + m[1] * fy + m[2], m[3] * fx + m[4] * fy + m[5]);
					}
				sum = sum * gain + base;
				channel[0][row + x] = sum[0], channel[1][row + x] = sum[1], channel[2][row + x] = sum[2];
			}
		}
	}
}

static void NAME(mirror)(float *planes, int rows, int w) {
	for (int y = 0; y < rows; y++) {
		float *row = planes + (size_t)y * w;
		int i = 0, j = w - 1;
#ifdef WIDEN
		const __m256i back = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
		for (; i + 16 <= j + 1; i += 8, j -= 8) {
			const __m256 left = _mm256_permutevar8x32_ps(_mm256_loadu_ps(row + i), back), right = _mm256_permutevar8x32_ps(_mm256_loadu_ps(row + j - 7), back);
			_mm256_storeu_ps(row + i, right);
			_mm256_storeu_ps(row + j - 7, left);
		}
#endif
		for (; i < j; i++, j--) {
			const float t = row[i];
			row[i] = row[j], row[j] = t;
		}
	}
}

// NAME(moments) sums values, squares, Laplacians and their squares over the spans, which keep step away from the edges.
static void NAME(moments)(double sums[4], const float *plane, ptrdiff_t w, const vigil_span *spans, size_t n, int step) {
	const ptrdiff_t down = step * w;
	for (size_t i = 0; i < n; i++) {
		const float *row = plane + spans[i].y * w;
		v4 s = NAME(splat)(0), q = s, l = s, r = s;
		float rest[4] = {0, 0, 0, 0};
		int x = spans[i].x0;
		for (; x + 4 <= spans[i].x1; x += 4) {
			const float *at = row + x;
			const v4 v = NAME(load)(at);
			const v4 d = NAME(splat)(4) * v - NAME(load)(at - step) - NAME(load)(at + step) - NAME(load)(at - down) - NAME(load)(at + down);
			s += v, q += v * v, l += d, r += d * d;
		}
		for (; x < spans[i].x1; x++) {
			const float *at = row + x;
			const float d = 4 * *at - at[-step] - at[step] - at[-down] - at[down];
			rest[0] += *at, rest[1] += *at * *at, rest[2] += d, rest[3] += d * d;
		}
		sums[0] += s[0] + s[1] + s[2] + s[3] + rest[0];
		sums[1] += q[0] + q[1] + q[2] + q[3] + rest[1];
		sums[2] += l[0] + l[1] + l[2] + l[3] + rest[2];
		sums[3] += r[0] + r[1] + r[2] + r[3] + rest[3];
	}
}

static inline int32_t NAME(level)(float v) { return !(v > 0) ? 0 : v >= 255 ? 255 : (int32_t)v; }

// NAME(luminance) writes a byte for every pixel of the spans: the sum of what the three tables say of its levels.
static void NAME(luminance)(uint8_t *dst, const float *planes, size_t plane, ptrdiff_t w, const vigil_span *spans, size_t n,
                            const float scale[3], const float offset[3], const float *table) {
	for (size_t k = 0; k < n; k++) {
		const float *row = planes + spans[k].y * w;
		int x = spans[k].x0;
#ifdef WIDEN
		const __m256 most = _mm256_set1_ps(255), none = _mm256_setzero_ps();
		for (; x + 8 <= spans[k].x1; x += 8, dst += 8) {
			__m256 sum = none;
			for (int c = 0; c < 3; c++) {
				const __m256 v = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(row + (size_t)c * plane + x), _mm256_set1_ps(scale[c])), _mm256_set1_ps(offset[c]));
				const __m256i level = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps(v, none), most));
				sum = _mm256_add_ps(sum, _mm256_i32gather_ps(table + 256 * c, level, 4));
			}
			const __m256i whole = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps(sum, none), most));
			const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
			_mm_storel_epi64((__m128i *)dst, _mm_packus_epi16(words, words));
		}
#endif
		for (; x < spans[k].x1; x++) {
			float sum = 0;
			for (int c = 0; c < 3; c++) sum += table[256 * c + NAME(level)(row[(size_t)c * plane + x] * scale[c] + offset[c])];
			*dst++ = (uint8_t)NAME(level)(sum);
		}
	}
}

// NAME(histogram) counts into four tables in turn, so that equal neighbours need not wait for one another.
static void NAME(histogram)(uint32_t *counts, const uint8_t *bytes, size_t n) {
	uint32_t part[4][256] = {{0}};
	size_t i = 0;
	for (; i + 4 <= n; i += 4)
		for (int k = 0; k < 4; k++) part[k][bytes[i + k]]++;
	for (; i < n; i++) part[0][bytes[i]]++;
	for (int v = 0; v < 256; v++) counts[v] += part[0][v] + part[1][v] + part[2][v] + part[3][v];
}

// NAME(dot) is exact: products of bytes are summed in 32 bits. GCC makes it widening multiply-adds.
static void NAME(dot)(int32_t *restrict dst, const int8_t *restrict rows, ptrdiff_t stride, size_t n, const int8_t *restrict probe, size_t size) {
	for (size_t r = 0; r < n; r++, rows += stride) {
		int32_t sum = 0;
		for (size_t i = 0; i < size; i++) sum += (int32_t)rows[i] * (int32_t)probe[i];
		dst[r] = sum;
	}
}

#undef v4
