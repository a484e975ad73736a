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
	"strings"
	"sync"
	"unsafe"

	"vigil/infer"
)

// Options configures a runtime.
type Options struct {
	// Library is the folder of TensorRT's libraries, or the path of the engine's; "" searches VIGIL_TRT_LIB,
	// /usr/lib/vigil/tensorrt and where the system's loader looks.
	Library string
	// Alloc gives the memory that plaintext of engines passes through.
	Alloc Alloc
	// Engines finds the serialised engine of a model with inputs of these shapes for the library that is open. The runtime
	// closes the source.
	Engines Engines
}

// Runtime is TensorRT on device 0. It implements infer.Runtime.
type Runtime struct {
	lib     *installed
	options Options
	log     *C.vt_log
	it      unsafe.Pointer
	stream  unsafe.Pointer

	// mu is held for every use of the stream, of the scratch memory and of the library's runtime.
	mu           sync.Mutex
	scratch      unsafe.Pointer
	scratchBytes int64
	scratchTurn  int // how often it was replaced
	counts       Counts
	once         sync.Once
	closeErr     error
}

// Open opens TensorRT with a stream of its own. Errors: ErrNoLibrary, ErrVersion, ErrUnsupported, ErrNoDriver, ErrRefused.
func Open(o Options) (r *Runtime, err error) {
	l, err := openLibrary(o.Library)
	if err != nil {
		return nil, err
	}
	r = &Runtime{lib: l, options: o, log: (*C.vt_log)(C.calloc(1, C.sizeof_vt_log))}
	defer func() {
		if err != nil {
			r.Close()
			r = nil
		}
	}()
	if r.it = C.vt_runtime(l.api, &l.entry, r.log); r.it == nil {
		return r, r.unready()
	}
	if err := l.device(); err != nil {
		return r, fmt.Errorf("%v (%s): %w", l.Library, l.Path, err)
	}
	if code := C.vt_cuda_stream(l.cuda, &r.stream); code != 0 {
		return r, r.cudaError("make a stream", code)
	}
	return r, nil
}

// noDriver are codes of the CUDA runtime that mean that there is no driver, or none that is new enough, or no device:
// cudaErrorInsufficientDriver is what a missing driver gives.
var noDriver = []string{"error: 35", "error 35", "cudaError 35", "error: 100", "error 100"}

// unready is why the library made no runtime.
func (r *Runtime) unready() error {
	said := logText(r.log.errors[:])
	for _, code := range noDriver {
		if strings.Contains(said, code) {
			first, _, _ := strings.Cut(said, " In ") // the rest are places in NVIDIA's sources
			return fmt.Errorf("%v (%s): %w: install the NVIDIA driver%s; it says: %s", r.lib.Library, r.lib.Path, ErrNoDriver, r.cudaWanted(), oneLine(first))
		}
	}
	return fmt.Errorf("%w: %v (%s) makes no runtime: %s", ErrRefused, r.lib.Library, r.lib.Path, orNothing(oneLine(said)))
}

func (r *Runtime) cudaWanted() string {
	if r.lib.CUDA == 0 {
		return " that it was made for"
	}
	return " of CUDA " + cudaText(r.lib.CUDA) + " or later"
}

func (r *Runtime) cudaError(what string, code C.int) error {
	return fmt.Errorf("cannot %s: CUDA says: %s", what, C.GoString(C.vt_cuda_error(r.lib.cuda, code)))
}

// logText is a log's text.
func logText(text []C.char) string { return C.GoString(&text[0]) }

// oneLine joins the first lines of a log for an error.
func oneLine(text string) string {
	const shown = 4
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if more := len(lines) - shown; more > 0 {
		lines = append(lines[:shown], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

func orNothing(text string) string {
	if text == "" {
		return "it does not say why"
	}
	return text
}

// Name implements infer.Runtime.
func (r *Runtime) Name() string {
	return fmt.Sprintf("%v on compute capability %s", r.lib.Library, r.lib.Compute)
}

// Library is what is known of the open library.
func (r *Runtime) Library() Library { return r.lib.Library }

// Notes are the library's warnings so far, the first of them.
func (r *Runtime) Notes() []string {
	text := logText(r.log.warnings[:])
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Dialects implements infer.Runtime.
func (r *Runtime) Dialects() []string { return []string{infer.DialectTensorRT} }

// Inspect implements infer.Inspector: TensorRT knows the tensors of engines, not of models. Errors: ErrRefused, always, so
// that the next runtime is asked.
func (*Runtime) Inspect([]byte) (inputs, outputs []infer.Tensor, err error) {
	return nil, nil, fmt.Errorf("%w to name the tensors of a model: it knows those of engines alone", ErrRefused)
}

// Counts are what the runtime did so far.
func (r *Runtime) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// Close implements infer.Runtime.
func (r *Runtime) Close() error {
	r.once.Do(func() {
		if r.scratch != nil {
			r.closeErr = r.free(r.scratch)
		}
		if r.stream != nil {
			if code := C.vt_cuda_stream_free(r.lib.cuda, r.stream); code != 0 {
				r.closeErr = errors.Join(r.closeErr, r.cudaError("close the stream", code))
			}
		}
		if r.it != nil {
			C.vt_runtime_free(r.lib.api, r.it)
		}
		r.lib.close()
		C.free(unsafe.Pointer(r.log))
		r.log = (*C.vt_log)(nil)
	})
	return r.closeErr
}

func (r *Runtime) free(device unsafe.Pointer) error {
	if code := C.vt_cuda_free(r.lib.cuda, device); code != 0 {
		return r.cudaError("free device memory", code)
	}
	return nil
}

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
