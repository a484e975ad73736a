// Layers of networks with 8-bit activations and weights, for processors with AVX-512 VNNI. See int8.go for what is promised.
//
// A tensor of activations is uint8, pixel by pixel (NHWC), its channels filled up to a multiple of GROUP; what is filled up
// holds anything and meets weights of 0. Behind every tensor lie SLACK bytes that a layer may write.
#ifndef VIGIL_INT8_H
#define VIGIL_INT8_H

#include <stddef.h>
#include <stdint.h>

#define VIGIL_GROUP 16
#define VIGIL_SLACK 64

// What a layer does. All are listed in int8.go.
enum {
	VIGIL_QUANTIZE,    // float32 planes to uint8 pixels, blocks of block x block pixels becoming one pixel
	VIGIL_CONV,        // dense convolution
	VIGIL_DEPTHWISE,   // one kernel per channel
	VIGIL_ADD,         // sum of two tensors
	VIGIL_MAX,         // greatest of block x block pixels
	VIGIL_REPEAT,      // every pixel block x block times
	VIGIL_LOOK_UP,     // uint8 to float32 by a table of 256, channels without their filling
};

// vigil_layer is one layer. Offsets are bytes from the start of the arena, sizes without filling unless said.
typedef struct {
	int32_t kind;
	int32_t in_h, in_w, in_c;     // in_c is filled up, but in VIGIL_QUANTIZE
	int32_t out_h, out_w, out_c;  // out_c is filled up, but in VIGIL_LOOK_UP
	int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
	int32_t block;
	int32_t in_zero, out_zero;    // zero points
	int32_t planes;               // VIGIL_LOOK_UP: out is planes, not pixels
	size_t in, in2, out;          // in2: what is added; NONE if nothing
	size_t zeros;                 // a row of in_w pixels of in_zero, where there is padding
	size_t scratch;               // VIGIL_DEPTHWISE: its work area
	float scale;                  // VIGIL_QUANTIZE: step of the result
	float a, b, fixed;            // of the sum: round(a * first + b * second + fixed)
	int8_t *weights;              // packed, owned by the layer, as what follows
	size_t weights_size;          // bytes
	int32_t *bias;                // one a channel, in the order of the packed weights
	float *scales;                // likewise
	int32_t *from;                // VIGIL_CONV: offsets from in of the pixels under the kernel, one list of pixels a position; -1 is zeros
	float *table;                 // VIGIL_LOOK_UP
} vigil_layer;

#define VIGIL_NONE ((size_t)-1)

// vigil_int8_have reports whether this processor runs the layers.
int vigil_int8_have(void);

// vigil_int8_pack gives a layer its weights: OIHW with in_c/group channels each for VIGIL_CONV (real_in of them), OHW for
// VIGIL_DEPTHWISE. bias and scales are one a channel, real_out of them. 0 if there is no memory.
int vigil_int8_pack(vigil_layer *l, const int8_t *weights, const int32_t *bias, const float *scales, int real_in, int real_out);
int vigil_int8_table(vigil_layer *l, const float *table);

// vigil_int8_free wipes the weights and frees the layers, which come from calloc.
void vigil_int8_free(vigil_layer *layers, size_t count);

// vigil_int8_scratch is the work area of a layer in bytes.
size_t vigil_int8_scratch(const vigil_layer *l);

// vigil_int8_run runs the layers. It returns their number, or that of the layer before which stop was found set. floats are
// the tensors of float32, which in of VIGIL_QUANTIZE and out of VIGIL_LOOK_UP number.
size_t vigil_int8_run(const vigil_layer *layers, size_t count, uint8_t *arena, float *const *floats, const int32_t *stop);

#endif
