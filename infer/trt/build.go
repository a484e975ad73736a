//go:build tensorrt

package trt

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"strings"
	"time"
	"unsafe"
)

// buildHere parses and builds in this process and calls done with the serialised engine, in the library's memory, which is
// gone when done returns. Errors: those of openLibrary, ErrRefused, those of done.
func buildHere(o Order, model []byte, step func(Step), done func(Built, []byte) error) error {
	l, err := openLibrary(o.Library)
	if err != nil {
		return err
	}
	defer l.close()
	if l.entry.create_builder == nil || l.Parser == "" {
		return fmt.Errorf("%v (%s) %w: it can run engines, not build them: the builder or the ONNX parser is missing beside it", l.Library, l.Path, ErrNoLibrary)
	}
	start := time.Now()
	log := (*C.vt_log)(C.calloc(1, C.sizeof_vt_log))
	defer C.free(unsafe.Pointer(log))
	var counts C.vt_counts
	built := l.build(o, model, step, &counts, log)
	if built == nil {
		return errors.New(orNothing(oneLine(logText(log.errors[:]))))
	}
	defer C.vt_built_free(l.api, built)
	n := C.vt_built_bytes(l.api, built)
	b := Built{
		Library: l.Library, Bytes: int64(n), Layers: int(counts.layers), Quantize: int(counts.quantize),
		Dequantize: int(counts.dequantize),
		Seconds:    time.Since(start).Seconds(), Peak: peakBytes(), Notes: []string{},
	}
	if text := logText(log.warnings[:]); text != "" {
		b.Notes = strings.Split(text, "\n")
	}
	return done(b, unsafe.Slice((*byte)(C.vt_built_data(l.api, built)), n))
}

// build returns the library's memory with the engine, nil if it refuses.
func (l *installed) build(o Order, model []byte, step func(Step), counts *C.vt_counts, log *C.vt_log) unsafe.Pointer {
	data := C.CBytes(model) // the library keeps pointers into it while it builds
	defer C.free(data)
	shapes := (*C.vt_shape)(C.calloc(C.size_t(len(o.Inputs)+1), C.sizeof_vt_shape))
	defer C.free(unsafe.Pointer(shapes))
	list := unsafe.Slice(shapes, len(o.Inputs)+1)
	for i, t := range o.Inputs {
		list[i] = shapeOf(t)
	}
	order := C.vt_order{
		model: data, model_bytes: C.size_t(len(model)), shapes: shapes, shape_count: C.int32_t(len(o.Inputs)),
		workspace_bytes: C.size_t(o.WorkspaceBytes),
	}
	h := cgo.NewHandle(step)
	defer h.Delete()
	return C.vt_build_told(l.api, &l.entry, &order, C.uintptr_t(h), counts, log)
}

// vigilTrtStep passes progress on; see vt_step of shim.h.
//
//export vigilTrtStep
func vigilTrtStep(user C.uintptr_t, phase, parent *C.char, done, steps C.int32_t) C.int32_t {
	step := cgo.Handle(user).Value().(func(Step))
	step(Step{Phase: C.GoString(phase), Parent: C.GoString(parent), Done: int(done), Steps: int(steps)})
	return 1
}

// peakBytes is the most memory of this process that was resident; 0 if the kernel does not say.
func peakBytes() int64 { return statusBytes("/proc/self/status", "VmHWM:") }
