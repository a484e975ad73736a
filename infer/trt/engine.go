//go:build tensorrt

package trt

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime/cgo"
	"slices"
	"unsafe"

	"vigil/infer"
)

// Load implements infer.Runtime: the engine comes from Options.Engines.
func (r *Runtime) Load(ctx context.Context, onnx []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	if len(inputs)+len(outputs) > C.VT_MAX_TENSORS {
		return nil, fmt.Errorf("a model of %d inputs and outputs: at most %d", len(inputs)+len(outputs), C.VT_MAX_TENSORS)
	}
	src, err := r.options.Engines(ctx, r.lib.Library, onnx, inputs)
	if err != nil {
		return nil, err
	}
	e, err := r.deserialise(src)
	if err = errors.Join(err, src.Close()); err != nil {
		return nil, err
	}
	e.inputs, e.outputs = inputs, outputs
	if err := e.match(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// deserialise makes an engine, by the stream reader where the library's version has one.
func (r *Runtime) deserialise(src Source) (e *engine, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	C.vt_log_forget(r.log)
	var it unsafe.Pointer
	if C.vt_streams(r.lib.api, C.int32_t(r.lib.Version)) == 1 {
		it, err = r.deserialiseStream(src)
	} else {
		it, err = r.deserialiseWhole(src)
	}
	if err != nil {
		return nil, err
	}
	if it == nil {
		return nil, fmt.Errorf("%w the engine: %s", ErrRefused, orNothing(oneLine(logText(r.log.errors[:]))))
	}
	need := int64(C.vt_scratch_bytes(r.lib.api, it))
	if err := r.reserve(need); err != nil {
		C.vt_engine_free(r.lib.api, it)
		return nil, err
	}
	return &engine{rt: r, it: it, scratch: need}, nil
}

// deserialiseWhole reads the engine into one piece of memory.
func (r *Runtime) deserialiseWhole(src Source) (it unsafe.Pointer, err error) {
	n := src.Size()
	m, err := r.options.Alloc(int(n))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	buf := m.Bytes()[:n]
	if _, err := src.ReadAt(buf, 0); err != nil {
		return nil, fmt.Errorf("cannot read the engine: %w", err)
	}
	return C.vt_engine(r.lib.api, r.it, unsafe.Pointer(&buf[0]), C.size_t(n)), nil
}

// reading is one engine on its way through the stream reader.
type reading struct {
	src  Source
	room []byte // of Alloc
	err  error
}

// deserialiseStream lets the library fetch the engine piece by piece.
func (r *Runtime) deserialiseStream(src Source) (it unsafe.Pointer, err error) {
	m, err := r.options.Alloc(pieceBytes)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	p := &reading{src: src, room: m.Bytes()}
	h := cgo.NewHandle(p)
	defer h.Delete()
	it = C.vt_engine_stream(r.lib.api, r.lib.cuda, r.it, C.int64_t(src.Size()), C.uintptr_t(h))
	if p.err != nil {
		if it != nil {
			C.vt_engine_free(r.lib.api, it)
		}
		return nil, fmt.Errorf("cannot read the engine: %w", p.err)
	}
	return it, nil
}

// vigilTrtRead is the stream reader's way to the source; see vt_read of shim.h.
//
//export vigilTrtRead
func vigilTrtRead(user C.uintptr_t, offset, bytes C.int64_t, data *unsafe.Pointer) C.int64_t {
	p := cgo.Handle(user).Value().(*reading)
	n := min(int64(bytes), int64(len(p.room)), p.src.Size()-int64(offset))
	if n <= 0 {
		return 0
	}
	if _, err := p.src.ReadAt(p.room[:n], int64(offset)); err != nil {
		p.err = err
		return -1
	}
	*data = unsafe.Pointer(&p.room[0])
	return C.int64_t(n)
}

// reserve makes the scratch memory of the device as large as the neediest engine wants. The caller holds mu.
func (r *Runtime) reserve(bytes int64) error {
	if bytes <= r.scratchBytes {
		return nil
	}
	var p unsafe.Pointer
	if code := C.vt_cuda_alloc(r.lib.cuda, C.size_t(bytes), &p); code != 0 {
		return r.cudaError(fmt.Sprintf("allocate %d bytes of device memory for engines to work in", bytes), code)
	}
	old := r.scratch
	r.scratch, r.scratchBytes, r.scratchTurn = p, bytes, r.scratchTurn+1
	if old == nil {
		return nil
	}
	return r.free(old) // nobody runs, and everybody looks at scratchTurn before running
}

// engine implements infer.Engine.
type engine struct {
	rt              *Runtime
	it              unsafe.Pointer
	scratch         int64
	inputs, outputs []infer.Tensor
	unwanted        []infer.Tensor // outputs of the model that the bundle does not name
}

// match checks the promised tensors against those of the engine.
func (e *engine) match() error {
	have := map[string]C.vt_tensor{}
	inputs := 0
	for i := range int(C.vt_tensors(e.rt.lib.api, e.it)) {
		var t C.vt_tensor
		if C.vt_tensor_at(e.rt.lib.api, e.it, C.int32_t(i), &t) == 0 {
			return fmt.Errorf("tensor %d of the engine has a name or a rank that is too long", i)
		}
		have[C.GoString(&t.name[0])] = t
		inputs += int(t.input)
	}
	if inputs != len(e.inputs) {
		return fmt.Errorf("the engine has %d inputs, bundle.json says %d", inputs, len(e.inputs))
	}
	if len(have) > C.VT_MAX_TENSORS {
		return fmt.Errorf("the engine has %d inputs and outputs: at most %d", len(have), C.VT_MAX_TENSORS)
	}
	for i, t := range slices.Concat(e.inputs, e.outputs) {
		kind := "output"
		if i < len(e.inputs) {
			kind = "input"
		}
		h, ok := have[t.Name]
		if !ok || (h.input == 1) != (kind == "input") {
			return fmt.Errorf("the engine has no %s %q: bundle.json does not fit the model", kind, t.Name)
		}
		if h.float32 == 0 {
			return fmt.Errorf("%s %q of the engine is not float32 in plain rows on the device", kind, t.Name)
		}
		if !fits(t.Shape, h) {
			return fmt.Errorf("%s %q of the engine has shape %v, bundle.json says %v", kind, t.Name, h.dims[:h.rank], t.Shape)
		}
		delete(have, t.Name)
	}
	for name, h := range have {
		t := infer.Tensor{Name: name, Type: "float32"}
		for _, d := range h.dims[:h.rank] {
			t.Shape = append(t.Shape, int64(d))
		}
		if t.Elements() == 0 {
			return fmt.Errorf("output %q of the engine, which bundle.json does not name, has the open shape %v", name, t.Shape)
		}
		e.unwanted = append(e.unwanted, t)
	}
	return nil
}

// fits: an open size (-1) takes every size.
func fits(want []int64, have C.vt_tensor) bool {
	if len(want) != int(have.rank) {
		return false
	}
	for i, n := range want {
		if d := int64(have.dims[i]); d != n && d >= 0 {
			return false
		}
	}
	return true
}

// Close implements infer.Engine.
func (e *engine) Close() error {
	e.rt.mu.Lock()
	defer e.rt.mu.Unlock()
	if e.it != nil {
		C.vt_engine_free(e.rt.lib.api, e.it)
		e.it = nil
	}
	return nil
}

// NewIO implements infer.Engine. It runs the model once on zeros, which TensorRT wants before its work is captured.
func (e *engine) NewIO() (infer.IO, error) {
	b := &bound{engine: e, way: (*C.vt_way)(C.calloc(1, C.sizeof_vt_way))}
	e.rt.mu.Lock()
	defer e.rt.mu.Unlock()
	if err := b.open(); err != nil {
		b.release()
		return nil, err
	}
	return b, nil
}
