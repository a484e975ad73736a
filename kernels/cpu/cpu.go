// Package cpu is the backend of package kernels in C: scaling of pictures into a tensor, alignment, colour conversion, and the
// scores of a gallery's rows. It takes the instructions that the processor has (AVX-512, or AVX2 with FMA, on x86-64, NEON on ARM).
//
// Promises: results equal the reference in package kernels to within rounding, 0.01 of a grey level before normalisation,
// at every size and format; colours converted from YUV and scores are the same bit for bit. Functions block for the work alone and
// allocate nothing once a Letterbox or Warper has seen its largest picture. Arguments are checked as the reference checks
// them: a wrong length panics. Callers that handle outside data check an Image with Image.Check first.
//
// A Letterbox or Warper owns its tables and work area and serves one goroutine at a time. Pictures and tensors are borrowed.
package cpu

/*
#cgo CFLAGS: -O3 -Wall -Wextra
#cgo LDFLAGS: -lm
#include "kernels.h"

// The arguments are flat, since C must not be handed memory of Go that points to other memory of Go.
static void letterbox(const vigil_kernels *k, float *dst, int dst_w, int dst_h, const uint8_t *p0, const uint8_t *p1, ptrdiff_t s0, ptrdiff_t s1,
                      int format, int w, int h, int full, const int64_t *cf, const float *ct, int cw, int cn, const int64_t *rf, const float *rt, int rw, int rn,
                      const float *norm, int bgr, float *scratch) {
	const vigil_image im = {{p0, p1}, {s0, s1}, format, w, h, full};
	const vigil_axis cols = {cf, ct, cw, cn}, rows = {rf, rt, rw, rn};
	k->letterbox(dst, dst_w, dst_h, &im, &cols, &rows, norm, norm + 3, bgr, scratch);
}

static void warp(const vigil_kernels *k, float *dst, int dst_w, int dst_h, const uint8_t *rgb, ptrdiff_t stride, int w, int h,
                 const float *map, int samples, const float *norm, int bgr) {
	k->warp(dst, dst_w, dst_h, rgb, stride, w, h, map, samples, norm, norm + 3, bgr);
}

static void rgb(const vigil_kernels *k, uint8_t *dst, const uint8_t *p0, const uint8_t *p1, ptrdiff_t s0, ptrdiff_t s1,
                int format, int w, int h, int full, int x, int y, int rw, int rh) {
	const vigil_image im = {{p0, p1}, {s0, s1}, format, w, h, full};
	k->rgb(dst, &im, x, y, rw, rh);
}

static void dot(const vigil_kernels *k, int32_t *dst, const int8_t *rows, ptrdiff_t stride, size_t n, const int8_t *probe, size_t size) {
	k->dot(dst, rows, stride, n, probe, size);
}

static void mirror(const vigil_kernels *k, float *planes, int rows, int w) { k->mirror(planes, rows, w); }
*/
import "C"

import (
	"math"
	"unsafe"

	"vigil/kernels"
)

// kernelSet are the kernels for one instruction set.
type kernelSet = C.vigil_kernels

// best are the kernels for this processor; tests set others.
var best = C.vigil_kernels_best()

// kernelSets are those that this processor runs, from the slowest on.
func kernelSets() (list []*kernelSet) {
	for i := 0; ; i++ {
		k := C.vigil_kernels_at(C.int(i))
		if k == nil {
			return list
		}
		list = append(list, k)
	}
}

// Name says which instructions are used: "AVX-512", "AVX2", or "plain" for those that every processor of the architecture has.
func Name() string { return C.GoString(best.name) }

// mostTaps is MOST_TAPS of kernels.c.
const mostTaps = 64

// Letterbox is kernels.Letterbox on this backend.
type Letterbox struct {
	*kernels.Letterbox
	cols, rows  kernels.Axis
	dstW, dstH  int
	first       [2][]int64
	scratch     []float32
	norm        [6]float32
	isReference bool // the tables are too wide for the C code: a picture that is shrunk more than sixtyfold
}

// NewLetterbox makes the tables to scale srcW x srcH pixels into a dstW x dstH tensor, see kernels.NewLetterbox.
func NewLetterbox(srcW, srcH, dstW, dstH int) *Letterbox {
	return newLetterbox(kernels.NewLetterbox(srcW, srcH, dstW, dstH), srcW)
}

// NewStretch is NewLetterbox without keeping the aspect ratio, see kernels.NewStretch.
func NewStretch(srcW, srcH, dstW, dstH int) *Letterbox {
	return newLetterbox(kernels.NewStretch(srcW, srcH, dstW, dstH), srcW)
}

func newLetterbox(ref *kernels.Letterbox, srcW int) *Letterbox {
	l := &Letterbox{Letterbox: ref}
	l.cols, l.rows, l.dstW, l.dstH = ref.Tables()
	if l.isReference = l.rows.Width > mostTaps || l.cols.Width > mostTaps; l.isReference {
		return l
	}
	for i, a := range []kernels.Axis{l.cols, l.rows} {
		for _, f := range a.First {
			l.first[i] = append(l.first[i], int64(f))
		}
	}
	l.scratch = make([]float32, C.vigil_letterbox_scratch(C.int(srcW), C.int(len(l.cols.First)), C.int(l.rows.Width)))
	return l
}

// Into is kernels.Letterbox.Into: the scaled picture as planar float32 [3, dstH, dstW].
func (l *Letterbox) Into(dst []float32, im *kernels.Image, n *kernels.Norm) {
	if l.isReference {
		l.Letterbox.Into(dst, im, n)
		return
	}
	if !l.Fits(im.Width, im.Height) || len(dst) != 3*l.dstW*l.dstH {
		panic("kernels: letterbox used for another size")
	}
	p := planesOf(im)
	setNorm(&l.norm, n)
	C.letterbox(best, (*C.float)(&dst[0]), C.int(l.dstW), C.int(l.dstH), p.data[0], p.data[1], p.stride[0], p.stride[1],
		C.int(im.Format), C.int(im.Width), C.int(im.Height), flag(im.FullRange),
		(*C.int64_t)(&l.first[0][0]), (*C.float)(&l.cols.Taps[0]), C.int(l.cols.Width), C.int(len(l.cols.First)),
		(*C.int64_t)(&l.first[1][0]), (*C.float)(&l.rows.Taps[0]), C.int(l.rows.Width), C.int(len(l.rows.First)),
		(*C.float)(&l.norm[0]), flag(n.BGR), (*C.float)(&l.scratch[0]))
}

// Warper is kernels.Warp with a work area.
type Warper struct {
	rgb  []byte
	norm [6]float32
	to   [6]float32
}

// maxSupersample is that of kernels.Warp.
const maxSupersample = 8

// Warp is kernels.Warp: a planar float tensor [3, dstH, dstW] of the points that toSrc names.
func (w *Warper) Warp(dst []float32, dstW, dstH int, im *kernels.Image, toSrc kernels.Affine, n *kernels.Norm) {
	if len(dst) != 3*dstW*dstH {
		panic("kernels: warp into a tensor of another size")
	}
	pixels, stride, width, height := im.Planes[0].Data, im.Planes[0].StrideBytes, im.Width, im.Height
	if im.Format != kernels.RGB24 {
		x0, y0, x1, y1 := covered(toSrc, dstW, dstH, im)
		width, height, stride = x1-x0, y1-y0, 3*(x1-x0)
		pixels = w.convert(im, x0, y0, width, height)
		toSrc.TX, toSrc.TY = toSrc.TX-float32(x0), toSrc.TY-float32(y0)
	}
	samples := min(max(int(math.Round(float64(toSrc.Scale()))), 1), maxSupersample)
	w.to = [6]float32{toSrc.A, toSrc.B, toSrc.TX, toSrc.C, toSrc.D, toSrc.TY}
	setNorm(&w.norm, n)
	C.warp(best, (*C.float)(&dst[0]), C.int(dstW), C.int(dstH), (*C.uint8_t)(&pixels[0]), C.ptrdiff_t(stride), C.int(width), C.int(height),
		(*C.float)(&w.to[0]), C.int(samples), (*C.float)(&w.norm[0]), flag(n.BGR))
}

// convert gives a part of the picture as RGB24, in the work area.
func (w *Warper) convert(im *kernels.Image, x, y, width, height int) []byte {
	if n := 3 * width * height; cap(w.rgb) < n {
		w.rgb = make([]byte, n)
	}
	w.rgb = w.rgb[:3*width*height]
	p := planesOf(im)
	C.rgb(best, (*C.uint8_t)(&w.rgb[0]), p.data[0], p.data[1], p.stride[0], p.stride[1], C.int(im.Format), C.int(im.Width), C.int(im.Height), flag(im.FullRange),
		C.int(x), C.int(y), C.int(width), C.int(height))
	return w.rgb
}

// Wipe overwrites what is left of the latest picture.
func (w *Warper) Wipe() { clear(w.rgb[:cap(w.rgb)]) }

// covered is the part of the picture that the tensor's pixels lie in, with a margin that interpolation needs; one pixel at
// least. What it leaves out is never looked at, unless it lies outside the picture.
func covered(m kernels.Affine, w, h int, im *kernels.Image) (x0, y0, x1, y1 int) {
	lowX, lowY, highX, highY := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for i := range 4 {
		x, y := m.Apply(float32(i%2*w)-0.5, float32(i/2*h)-0.5)
		lowX, highX = math.Min(lowX, float64(x)), math.Max(highX, float64(x))
		lowY, highY = math.Min(lowY, float64(y)), math.Max(highY, float64(y))
	}
	clamp := func(v float64, most int) int {
		if !(v > 0) {
			return 0
		}
		return int(math.Min(v, float64(most)))
	}
	const margin = 4
	x0, y0 = clamp(math.Floor(lowX)-margin, im.Width-1), clamp(math.Floor(lowY)-margin, im.Height-1)
	x1, y1 = max(clamp(math.Ceil(highX)+margin, im.Width), x0+1), max(clamp(math.Ceil(highY)+margin, im.Height), y0+1)
	return x0, y0, x1, y1
}

// Mirror turns every row of planes around: [rows, w] in place.
func Mirror(planes []float32, rows, w int) {
	if len(planes) != rows*w {
		panic("kernels: mirror of planes of another size")
	}
	if len(planes) > 0 {
		C.mirror(best, (*C.float)(&planes[0]), C.int(rows), C.int(w))
	}
}

// DotRows is kernels.DotRows, exact as well.
func DotRows(dst []int32, rows []int8, strideBytes int, probe []int8) {
	n := len(probe)
	if strideBytes < n || (len(dst) > 0 && len(rows) < (len(dst)-1)*strideBytes+n) {
		panic("kernels: gallery rows shorter than promised")
	}
	if len(dst) == 0 || n == 0 {
		clear(dst)
		return
	}
	C.dot(best, (*C.int32_t)(&dst[0]), (*C.int8_t)(&rows[0]), C.ptrdiff_t(strideBytes), C.size_t(len(dst)), (*C.int8_t)(&probe[0]), C.size_t(n))
}

// planes of a picture as C takes them.
type planes struct {
	data   [2]*C.uint8_t
	stride [2]C.ptrdiff_t
}

func planesOf(im *kernels.Image) (p planes) {
	for i, plane := range im.Planes {
		if len(plane.Data) > 0 {
			p.data[i], p.stride[i] = (*C.uint8_t)(unsafe.Pointer(&plane.Data[0])), C.ptrdiff_t(plane.StrideBytes)
		}
	}
	return p
}

func setNorm(to *[6]float32, n *kernels.Norm) {
	copy(to[:3], n.Mean[:])
	copy(to[3:], n.InvStd[:])
}

func flag(on bool) C.int {
	if on {
		return 1
	}
	return 0
}
