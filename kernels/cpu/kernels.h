// The kernels of this package in C. Arrays are row-major; sizes are in elements; nothing is kept and nothing is allocated.
#ifndef VIGIL_KERNELS_CPU_H
#define VIGIL_KERNELS_CPU_H

#include <stddef.h>
#include <stdint.h>

// Pixel formats, as kernels.Format numbers them.
enum { VIGIL_GRAY8 = 1, VIGIL_RGB24, VIGIL_NV12, VIGIL_YUYV };

// vigil_image is a picture in somebody else's memory.
typedef struct {
	const uint8_t *plane[2];
	ptrdiff_t stride[2];
	int format, width, height, full_range;
} vigil_image;

// vigil_axis is a table of filter taps: output i is the sum of width inputs from first[i], weighted by taps[i * width ...].
typedef struct {
	const int64_t *first;
	const float *taps;
	int width, outputs;
} vigil_axis;

// vigil_span is kernels.Span.
typedef struct {
	int32_t y, x0, x1;
} vigil_span;

// vigil_kernels are the kernels for one instruction set.
typedef struct {
	const char *name;
	void (*letterbox)(float *dst, int dst_w, int dst_h, const vigil_image *im, const vigil_axis *cols, const vigil_axis *rows,
	                  const float *mean, const float *inv, int bgr, float *scratch);
	void (*warp)(float *dst, int dst_w, int dst_h, const uint8_t *rgb, ptrdiff_t stride, int width, int height,
	             const float *map, int samples, const float *mean, const float *inv, int bgr);
	void (*rgb)(uint8_t *dst, const vigil_image *im, int x, int y, int w, int h);
	void (*mirror)(float *planes, int rows, int w);
	void (*moments)(double sums[4], const float *plane, ptrdiff_t w, const vigil_span *spans, size_t n, int step);
	void (*luminance)(uint8_t *dst, const float *planes, size_t plane, ptrdiff_t w, const vigil_span *spans, size_t n,
	                  const float scale[3], const float offset[3], const float *table);
	void (*histogram)(uint32_t *counts, const uint8_t *bytes, size_t n);
	void (*dot)(int32_t *dst, const int8_t *rows, ptrdiff_t stride, size_t n, const int8_t *probe, size_t size);
} vigil_kernels;

// vigil_kernels_at are those that this processor runs, from the slowest on; NULL beyond. vigil_kernels_best is the last of them,
// vigil_kernels_plain the first, which every processor of the architecture runs.
const vigil_kernels *vigil_kernels_at(int i);
const vigil_kernels *vigil_kernels_best(void);
extern const vigil_kernels vigil_kernels_plain;

// vigil_letterbox_scratch is the number of floats that a letterbox of these sizes works in.
size_t vigil_letterbox_scratch(int src_w, int out_w, int rows_width);

#endif
