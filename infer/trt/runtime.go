//go:build tensorrt

package trt

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"errors"
	"fmt"
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
