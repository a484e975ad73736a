package cpu

/*
#include "kernels.h"

static void moments(const vigil_kernels *k, double *sums, const float *plane, ptrdiff_t w, const vigil_span *spans, size_t n, int step) {
	k->moments(sums, plane, w, spans, n, step);
}

static void light(const vigil_kernels *k, uint8_t *dst, size_t total, uint32_t *counts, const float *planes, size_t plane, ptrdiff_t w,
                  const vigil_span *spans, size_t n, const float *levels) {
	k->luminance(dst, planes, plane, w, spans, n, levels, levels + 3, levels + 6);
	k->histogram(counts, dst, total);
}
*/
import "C"

import (
	"unsafe"

	"vigil/kernels"
)

// Spans are the parts of a picture that statistics are made of, with the work area for it. Its zero value holds none. It serves one
// goroutine at a time.
type Spans struct {
	list, cut []kernels.Span
	sums      [4]float64
	counts    [256]uint32
	bytes     []byte
}

// Reset forgets the spans.
func (s *Spans) Reset() { s.list = s.list[:0] }

// Add appends pixels x0..x1-1 of row y; none if x0 >= x1.
func (s *Spans) Add(y, x0, x1 int) {
	if x0 < x1 {
		s.list = append(s.list, kernels.Span{Y: int32(y), X0: int32(x0), X1: int32(x1)})
	}
}

// List returns the spans, which stay the receiver's.
func (s *Spans) List() []kernels.Span { return s.list }

// Moments is kernels.MomentsOf. It equals the reference to within the rounding of float32 sums over a row.
func (s *Spans) Moments(plane []float32, w, step int) (m kernels.Moments) {
	h := len(plane) / w
	s.cut = s.cut[:0]
	for _, p := range s.list {
		if int(p.Y) < step || int(p.Y) >= h-step {
			continue
		}
		p.X0, p.X1 = max(p.X0, int32(step)), min(p.X1, int32(w-step))
		if p.X0 < p.X1 {
			s.cut = append(s.cut, p)
			m.Count += int(p.X1 - p.X0)
		}
	}
	if len(s.cut) == 0 {
		return m
	}
	s.sums = [4]float64{}
	C.moments(best, (*C.double)(&s.sums[0]), (*C.float)(&plane[0]), C.ptrdiff_t(w), spansOf(s.cut), C.size_t(len(s.cut)), C.int(step))
	m.Sum, m.Squares, m.Laplacian, m.LaplacianSquares = s.sums[0], s.sums[1], s.sums[2], s.sums[3]
	return m
}

// Luminance is kernels.Levels.Luminance, with the histogram of what it wrote; both stay the receiver's, until the next call. The
// bytes equal the reference but where a value lies within rounding of a level.
func (s *Spans) Luminance(planes []float32, w int, l *kernels.Levels) (bytes []byte, counts *[256]uint32) {
	h, n := len(planes)/3/w, 0
	for _, p := range s.list {
		if p.Y < 0 || int(p.Y) >= h || p.X0 < 0 || int(p.X1) > w {
			panic("kernels: a span that leaves the picture")
		}
		n += int(p.X1 - p.X0)
	}
	if cap(s.bytes) < n {
		s.bytes = make([]byte, n)
	}
	s.bytes, s.counts = s.bytes[:n], [256]uint32{}
	if n > 0 {
		C.light(best, (*C.uint8_t)(&s.bytes[0]), C.size_t(n), (*C.uint32_t)(&s.counts[0]), (*C.float)(&planes[0]), C.size_t(h*w), C.ptrdiff_t(w),
			spansOf(s.list), C.size_t(len(s.list)), (*C.float)(unsafe.Pointer(l)))
	}
	return s.bytes, &s.counts
}

// Wipe overwrites what is left of the latest picture.
func (s *Spans) Wipe() {
	clear(s.bytes[:cap(s.bytes)])
	s.counts, s.sums = [256]uint32{}, [4]float64{}
}

func spansOf(list []kernels.Span) *C.vigil_span { return (*C.vigil_span)(unsafe.Pointer(&list[0])) }
