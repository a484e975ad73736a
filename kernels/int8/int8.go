// Package int8 computes networks with 8-bit activations and weights, in C, on processors with AVX-512 VNNI.
//
// Promises: sums are exact; a result is round(sum * scale) + zero point, half to even, kept within 0 and 255, as ONNX defines
// QuantizeLinear behind a convolution. Run blocks for the work alone, allocates nothing and looks between two layers at whether it is to
// stop. Layers are checked by New, which holds hostile sizes and numbers off the kernels.
//
// A Network owns its packed weights, which Close wipes; an Arena owns the activations of one run, outside Go's heap, left out of
// core dumps and wiped by Close. A Network is safe for concurrent use, an Arena serves one run at a time. The package reads no
// model files: infer/vnni does.
package int8

/*
#cgo CFLAGS: -O2 -Wall -Wextra
#include <stdlib.h>
#include "int8.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind says what a layer does.
type Kind int32

// Kinds of layers.
const (
	Quantize  Kind = C.VIGIL_QUANTIZE  // planes of float32 to pixels; Block x Block pixels become one, as SpaceToDepth lays them
	Conv      Kind = C.VIGIL_CONV      // dense convolution; with Add its result is added to another tensor
	Depthwise Kind = C.VIGIL_DEPTHWISE // one kernel a channel
	Sum       Kind = C.VIGIL_ADD       // of In and Add
	Max       Kind = C.VIGIL_MAX       // greatest of Block x Block pixels
	Repeat    Kind = C.VIGIL_REPEAT    // every pixel Block x Block times
	LookUp    Kind = C.VIGIL_LOOK_UP   // float32 by Table
)

// None stands for no tensor.
const None = -1

// Shape is the size of a tensor of pixels.
type Shape struct{ H, W, C int }

// Elements is the number of its values.
func (s Shape) Elements() int { return s.H * s.W * s.C }

// filled is its number of channels in memory.
func (s Shape) filled() int { return (s.C + C.VIGIL_GROUP - 1) / C.VIGIL_GROUP * C.VIGIL_GROUP }

// bytes is what it takes in memory.
func (s Shape) bytes() int { return s.H*s.W*s.filled() + C.VIGIL_SLACK }

// Layer is one layer. In, Add and Out number tensors of pixels in the list given to New, but In of Quantize and Out of LookUp,
// which number the float32 tensors of an Arena.
type Layer struct {
	Name            string
	Kind            Kind
	In, Add, Out    int   // Add: None if nothing is added
	Shape           Shape // of In, in Quantize of the planes
	Kernel, Stride  [2]int
	Dilation        [2]int // pixels from one position of the kernel to the next
	Pad             [2]int // above and to the left; what lies below and to the right follows from the result's size
	Block           int
	InZero, OutZero uint8   // zero points
	Scale           float32 // Quantize: step of the result
	A, B, Fixed     float32 // a sum is round(A*first + B*second + Fixed); first is the convolution's rounded result, or In
	Weights         []int8  // Conv: [out][in][kernel], Depthwise: [out][kernel]
	Bias            []int32 // of the sums, with the part of InZero: -InZero times the sum of a channel's weights
	Scales          []float32
	Table           *[256]float32
	Planes          bool // LookUp: the result is planes, else pixels
}

// Limits on what New accepts.
const (
	mostPositions = 64 // of a kernel, MOST_POSITIONS of int8.c
	mostSide      = 1 << 14
	mostChannels  = 1 << 13
	mostBytes     = 1 << 29 // of an arena
	mostOffsets   = 1 << 24 // of pixels under a kernel
	mostFloats    = 64      // tensors of float32
	leastStep     = 1e-30   // of a quantised input, whose inverse is a number, too
)

// ErrProcessor means that this processor lacks instructions.
var ErrProcessor = errors.New("the processor has no AVX-512 VNNI")

// Have says whether this processor can run networks. Errors: ErrProcessor.
func Have() error {
	if C.vigil_int8_have() == 0 {
		return ErrProcessor
	}
	return nil
}

// Network is a list of layers with their weights.
type Network struct {
	layers *C.vigil_layer
	count  int
	plan   plan
	floats int
}

// New packs a network. tensors are the sizes of all tensors of pixels. Errors name the layer.
func New(layers []Layer, tensors []Shape) (_ *Network, err error) {
	if err := Have(); err != nil {
		return nil, err
	}
	n := &Network{count: len(layers)}
	for i := range layers {
		if err := layers[i].check(tensors); err != nil {
			return nil, fmt.Errorf("layer %q: %w", layers[i].Name, err)
		}
		n.floats = max(n.floats, layers[i].float()+1)
	}
	n.layers = (*C.vigil_layer)(C.calloc(C.size_t(len(layers)), C.sizeof_vigil_layer))
	if n.layers == nil {
		return nil, errors.New("no memory for layers")
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	scratch := 0
	for i, l := range n.all() {
		if err := layers[i].put(&l[0], tensors); err != nil {
			return nil, fmt.Errorf("layer %q: %w", layers[i].Name, err)
		}
		scratch = max(scratch, int(C.vigil_int8_scratch(&l[0])))
	}
	if n.plan, err = newPlan(layers, tensors, scratch); err != nil {
		return nil, err
	}
	for i, l := range n.all() {
		n.plan.place(&layers[i], &l[0])
	}
	return n, nil
}

// all ranges over the layers in C.
func (n *Network) all() func(func(int, []C.vigil_layer) bool) {
	list := unsafe.Slice(n.layers, n.count)
	return func(yield func(int, []C.vigil_layer) bool) {
		for i := range list {
			if !yield(i, list[i:i+1]) {
				return
			}
		}
	}
}

// Close wipes and frees the weights. No run may be under way.
func (n *Network) Close() {
	C.vigil_int8_free(n.layers, C.size_t(n.count))
	n.layers, n.count = nil, 0
}

// float is the number of the float32 tensor of a layer, None if it has none.
func (l *Layer) float() int {
	switch l.Kind {
	case Quantize:
		return l.In
	case LookUp:
		return l.Out
	}
	return None
}

// put fills in all but the places in the arena.
func (l *Layer) put(c *C.vigil_layer, tensors []Shape) error {
	out := l.result(tensors)
	c.kind = C.int32_t(l.Kind)
	c.in_h, c.in_w, c.in_c = C.int32_t(l.Shape.H), C.int32_t(l.Shape.W), C.int32_t(l.Shape.filled())
	c.out_h, c.out_w, c.out_c = C.int32_t(out.H), C.int32_t(out.W), C.int32_t(out.filled())
	c.kernel_h, c.kernel_w = C.int32_t(l.Kernel[0]), C.int32_t(l.Kernel[1])
	c.stride_h, c.stride_w = C.int32_t(l.Stride[0]), C.int32_t(l.Stride[1])
	c.dilation_h, c.dilation_w = C.int32_t(l.Dilation[0]), C.int32_t(l.Dilation[1])
	c.pad_top, c.pad_left = C.int32_t(l.Pad[0]), C.int32_t(l.Pad[1])
	c.block, c.in_zero, c.out_zero = C.int32_t(l.Block), C.int32_t(l.InZero), C.int32_t(l.OutZero)
	c.scale, c.a, c.b, c.fixed = C.float(l.Scale), C.float(l.A), C.float(l.B), C.float(l.Fixed)
	ok := C.int(1)
	switch l.Kind {
	case Quantize:
		c.in_c = C.int32_t(l.Shape.C)
	case LookUp:
		c.out_c = C.int32_t(out.C)
		if l.Planes {
			c.planes = 1
		}
		ok = C.vigil_int8_table(c, (*C.float)(&l.Table[0]))
	case Conv, Depthwise:
		ok = C.vigil_int8_pack(c, (*C.int8_t)(&l.Weights[0]), (*C.int32_t)(&l.Bias[0]), (*C.float)(&l.Scales[0]), C.int(l.Shape.C), C.int(out.C))
	}
	if ok == 0 {
		return errors.New("no memory for its weights")
	}
	return nil
}

// result is the size of what the layer makes.
func (l *Layer) result(tensors []Shape) Shape {
	if l.Kind == LookUp {
		return l.Shape
	}
	return tensors[l.Out]
}

// Arena is the memory of one run: activations, and the float32 tensors that go in and come out.
type Arena struct {
	mem    []byte
	values [][]byte       // of the float32 tensors, each mapped on its own
	floats []*C.float     // the same, in memory of C
	stop   *C.int32_t     // likewise
	block  unsafe.Pointer // what floats and stop lie in
}

// NewArena makes the memory of a run of the network. floats are the numbers of values of the float32 tensors.
func (n *Network) NewArena(floats []int) (_ *Arena, err error) {
	if len(floats) != n.floats {
		return nil, fmt.Errorf("%d float tensors, not %d", n.floats, len(floats))
	}
	a := &Arena{block: C.calloc(C.size_t(n.floats+1), 8)}
	if a.block == nil {
		return nil, errors.New("no memory for an arena")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	a.stop = (*C.int32_t)(a.block)
	a.floats = unsafe.Slice((**C.float)(unsafe.Add(a.block, 8)), n.floats)
	if a.mem, err = mapped(max(n.plan.size, 1)); err != nil {
		return nil, err
	}
	for _, z := range n.plan.zeros {
		row := a.mem[z.at : z.at+z.size]
		for i := range row {
			row[i] = z.value
		}
	}
	for i, size := range floats {
		mem, err := mapped(4 * max(size, 1))
		if err != nil {
			return nil, err
		}
		a.values = append(a.values, mem)
		a.floats[i] = (*C.float)(unsafe.Pointer(&mem[0]))
	}
	return a, nil
}

// mapped is memory outside Go's heap that core dumps leave out.
func mapped(size int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("cannot map %d bytes: %w", size, err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot keep activations out of core dumps: %w", err), unix.Munmap(mem))
	}
	return mem, nil
}

// Float is the memory of a float32 tensor, at the same place until Close.
func (a *Arena) Float(i int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&a.values[i][0])), len(a.values[i])/4)
}

// Stop ends the run that is under way, or the next, before its next layer; Clear takes that back. Both may be called from
// anywhere until Close.
func (a *Arena) Stop() { atomic.StoreInt32((*int32)(unsafe.Pointer(a.stop)), 1) }

// Clear takes Stop back. It has no errors.
func (a *Arena) Clear() error {
	atomic.StoreInt32((*int32)(unsafe.Pointer(a.stop)), 0)
	return nil
}

// Run runs the network and reports whether it came to its end: false after Stop.
func (n *Network) Run(a *Arena) bool {
	var floats **C.float
	if len(a.floats) > 0 {
		floats = &a.floats[0]
	}
	done := int(C.vigil_int8_run(n.layers, C.size_t(n.count), (*C.uint8_t)(&a.mem[0]), floats, a.stop))
	runtime.KeepAlive(n)
	return done == n.count
}

// Close wipes and frees the arena.
func (a *Arena) Close() (err error) {
	C.free(a.block)
	a.block, a.stop, a.floats = nil, nil, nil
	for _, mem := range append(a.values, a.mem) {
		if mem != nil {
			clear(mem)
			err = errors.Join(err, unix.Munmap(mem))
		}
	}
	a.values, a.mem = nil, nil
	return err
}

// check holds off what the kernels must not see.
func (l *Layer) check(tensors []Shape) error {
	if err := l.checkTensors(tensors); err != nil {
		return err
	}
	in, out := l.Shape, l.result(tensors)
	switch l.Kind {
	case Quantize:
		if b := l.Block; b != 1 && b != 2 || in.H != out.H*b || in.W != out.W*b || in.C*b*b != out.C || out.C > C.VIGIL_GROUP {
			return fmt.Errorf("%v to %v in blocks of %d cannot be made", in, out, b)
		}
		if !(l.Scale > leastStep && l.Scale < 1/leastStep) {
			return fmt.Errorf("step %g", l.Scale)
		}
	case Conv, Depthwise:
		if err := l.checkWeights(in, out); err != nil {
			return err
		}
	case Sum:
		if in != out {
			return fmt.Errorf("%v to %v: a sum keeps the size", in, out)
		}
	case Max:
		if b := l.Block; b < 1 || in.H/b != out.H || in.W/b != out.W || in.C != out.C {
			return fmt.Errorf("%v to %v by blocks of %d", in, out, b)
		}
	case Repeat:
		if b := l.Block; b < 1 || in.H*b != out.H || in.W*b != out.W || in.C != out.C {
			return fmt.Errorf("%v to %v by blocks of %d", in, out, b)
		}
	case LookUp:
		if l.Table == nil {
			return errors.New("no table")
		}
	default:
		return fmt.Errorf("unknown kind %d", l.Kind)
	}
	return nil
}

// checkTensors checks numbers and sizes of what a layer reads and writes.
func (l *Layer) checkTensors(tensors []Shape) error {
	for _, t := range []struct {
		number int
		float  bool
		want   *Shape
	}{{l.In, l.Kind == Quantize, &l.Shape}, {l.Out, l.Kind == LookUp, nil}, {l.Add, false, nil}} {
		switch {
		case t.float && (t.number < 0 || t.number >= mostFloats):
			return fmt.Errorf("float tensor %d", t.number)
		case t.float:
		case t.number == None && t.want == nil && t.number == l.Add && l.Kind != Sum:
		case t.number < 0 || t.number >= len(tensors):
			return fmt.Errorf("tensor %d of %d", t.number, len(tensors))
		case t.want != nil && *t.want != tensors[t.number]:
			return fmt.Errorf("tensor %d is %v, not %v", t.number, tensors[t.number], *t.want)
		}
	}
	list := append([]Shape{l.Shape}, tensors...)
	for _, s := range list {
		if s.H < 1 || s.W < 1 || s.C < 1 || s.H > mostSide || s.W > mostSide || s.C > mostChannels || s.H*s.W*s.filled() > mostBytes {
			return fmt.Errorf("a tensor of %v is too large", s)
		}
	}
	if l.Add == None {
		return nil
	}
	if l.Kind != Conv && l.Kind != Sum {
		return errors.New("nothing can be added")
	}
	if tensors[l.Add] != tensors[l.Out] || l.Add == l.Out {
		return fmt.Errorf("%v is added to %v", tensors[l.Add], tensors[l.Out])
	}
	for _, v := range []float32{l.A, l.B, l.Fixed} {
		if !(math.Abs(float64(v)) < 1<<20) {
			return fmt.Errorf("the sum has a factor of %g", v)
		}
	}
	return nil
}

// checkWeights checks a convolution.
func (l *Layer) checkWeights(in, out Shape) error {
	positions, each := l.Kernel[0]*l.Kernel[1], in.C
	if l.Kind == Depthwise {
		if each = 1; in.C != out.C {
			return fmt.Errorf("%v to %v: channels change", in, out)
		}
	}
	for d, n := range [2][2]int{{in.H, out.H}, {in.W, out.W}} {
		k, s, p, apart := l.Kernel[d], l.Stride[d], l.Pad[d], l.Dilation[d]
		if k < 1 || k > mostPositions || s < 1 || s > mostPositions || apart < 1 || apart > mostSide || p < 0 || p >= mostSide || (n[1]-1)*s-p >= n[0] {
			return fmt.Errorf("kernel %v, stride %v, dilation %v, padding %v of %v to %v", l.Kernel, l.Stride, l.Dilation, l.Pad, in, out)
		}
	}
	switch {
	case positions > mostPositions:
		return fmt.Errorf("a kernel of %v has over %d positions", l.Kernel, mostPositions)
	case positions*out.H*out.W > mostOffsets:
		return fmt.Errorf("a kernel of %v on %v is too large", l.Kernel, out)
	case len(l.Weights) != positions*each*out.C || len(l.Bias) != out.C || len(l.Scales) != out.C:
		return fmt.Errorf("%d weights, %d biases and %d scales for %v of %d to %d channels", len(l.Weights), len(l.Bias), len(l.Scales), l.Kernel, in.C, out.C)
	}
	each *= positions
	for o, s := range l.Scales {
		most := math.Abs(float64(l.Bias[o]))
		for _, w := range l.Weights[o*each:][:each] {
			most += 255 * math.Abs(float64(w))
		}
		if !(s > 0) || most*max(1, float64(s)) >= 1<<31 {
			return fmt.Errorf("channel %d has scale %g and sums up to %g, which overflow", o, s, most)
		}
	}
	return nil
}
