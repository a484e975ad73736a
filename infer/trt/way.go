//go:build tensorrt

package trt

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"fmt"
	"slices"
	"unsafe"

	"vigil/infer"
)

// bound implements infer.IO.
type bound struct {
	engine  *engine
	way     *C.vt_way // in C's memory
	turn    int       // of the scratch memory that it was captured with
	noGraph string    // why its runs are no CUDA graph
	in, out [][]float32
}

// open allocates, binds, runs once and captures. The caller holds mu.
func (b *bound) open() error {
	e, r, w := b.engine, b.engine.rt, b.way
	C.vt_log_forget(r.log)
	w.api, w.cuda, w.stream = r.lib.api, r.lib.cuda, r.stream
	for i, t := range slices.Concat(e.inputs, e.outputs, e.unwanted) {
		if t.Elements() == 0 || len(t.Name) >= C.VT_NAME_BYTES {
			return fmt.Errorf("tensor %v cannot be bound", t)
		}
		s := &w.t[i]
		copyText(s.name[:], t.Name)
		s.bytes = C.size_t(4 * t.Elements())
		switch {
		case i < len(e.inputs):
			s.use = C.VT_INPUT
		case i >= len(e.inputs)+len(e.outputs):
			s.use, s.bytes = C.VT_UNWANTED, 2*s.bytes // whatever its type, at most 8 bytes a value
		}
		w.count++
	}
	if C.vt_way_open(w, e.it) != 0 {
		return b.failed()
	}
	for _, t := range e.inputs {
		s := shapeOf(t)
		if C.vt_way_shape(w, &s) != 0 {
			return b.failed()
		}
	}
	if C.vt_way_ready(w, r.scratch, C.int64_t(r.scratchBytes)) != 0 {
		return b.failed()
	}
	b.capture()
	for i := range len(e.inputs) + len(e.outputs) {
		values := unsafe.Slice((*float32)(w.t[i].host), w.t[i].bytes/4)
		if i < len(e.inputs) {
			b.in = append(b.in, values)
		} else {
			clear(values)
			b.out = append(b.out, values)
		}
	}
	return nil
}

// capture makes the CUDA graph of a run; without one, runs go step by step and noGraph says why.
func (b *bound) capture() {
	b.turn = b.engine.rt.scratchTurn
	if C.vt_way_capture(b.way) != 0 {
		b.noGraph = b.failed().Error()
		return
	}
	b.noGraph = ""
	b.engine.rt.counts.Captures++
}

// failed is the latest failure of the way.
func (b *bound) failed() error {
	r := b.engine.rt
	if b.way.error != 0 {
		return r.cudaError(C.GoString(b.way.failed), b.way.error)
	}
	return fmt.Errorf("%w: cannot %s: %s", ErrRefused, C.GoString(b.way.failed), orNothing(oneLine(logText(r.log.errors[:]))))
}

// NoGraph is why the runs of an IO are no CUDA graph; "" if they are one.
func (b *bound) NoGraph() string { return b.noGraph }

// Input implements infer.IO.
func (b *bound) Input(i int) []float32 { return b.in[i] }

// Output implements infer.IO.
func (b *bound) Output(i int) []float32 { return b.out[i] }

// Run implements infer.IO.
func (b *bound) Run(ctx context.Context) error {
	r := b.engine.rt
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.turn != r.scratchTurn { // a larger engine came: its memory is ours too now
		if C.vt_way_scratch(b.way, r.scratch, C.int64_t(r.scratchBytes)) != 0 {
			return b.failed()
		}
		b.capture()
	}
	w := b.way
	in, out, syncs, launches := w.copies_in, w.copies_out, w.syncs, w.launches
	code := C.vt_way_run(w)
	r.counts.Runs++
	r.counts.CopiesIn += uint64(w.copies_in - in)
	r.counts.CopiesOut += uint64(w.copies_out - out)
	r.counts.Syncs += uint64(w.syncs - syncs)
	r.counts.GraphLaunches += uint64(w.launches - launches)
	if code != 0 {
		return fmt.Errorf("the model failed while running: %w", b.failed())
	}
	return nil
}

// Close implements infer.IO.
func (b *bound) Close() error {
	b.engine.rt.mu.Lock()
	defer b.engine.rt.mu.Unlock()
	b.release()
	return nil
}

// release wipes and frees. The caller holds mu.
func (b *bound) release() {
	if b.way == nil {
		return
	}
	C.vt_way_close(b.way)
	C.free(unsafe.Pointer(b.way))
	b.way, b.in, b.out = nil, nil, nil
}

func copyText(to []C.char, from string) {
	for i := range len(from) {
		to[i] = C.char(from[i])
	}
	to[len(from)] = 0
}

// shapeOf writes a tensor's shape for C; a rank that is too high is cut, and refused there.
func shapeOf(t infer.Tensor) (s C.vt_shape) {
	copyText(s.name[:], t.Name[:min(len(t.Name), C.VT_NAME_BYTES-1)])
	for i, d := range t.Shape[:min(len(t.Shape), C.VT_MAX_DIMS)] {
		s.dims[i] = C.int64_t(d)
	}
	s.rank = C.int32_t(len(t.Shape))
	return s
}
