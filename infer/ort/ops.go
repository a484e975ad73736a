package ort

/*
#cgo CFLAGS: -O2 -Wall -Wextra
#cgo LDFLAGS: -lm -ldl
#include <stdlib.h>
#include "ops.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/unix"

	"vigil/infer"
)

// operators are ours, registered with the library that is open: one domain for all sessions of the process. They live in
// this binary; ONNX Runtime calls them on its own threads and they never enter Go.
type operators struct {
	c    C.vigil_ops
	open bool
}

// register makes the domain in the library of that path, which is open.
func (o *operators) register(path string) error {
	lib, domain := C.CString(path), C.CString(infer.OpsDomain)
	defer C.free(unsafe.Pointer(lib))
	defer C.free(unsafe.Pointer(domain))
	if err := failure(C.vigil_ops_open(&o.c, lib, domain)); err != nil {
		return fmt.Errorf("cannot register operators with ONNX Runtime: %w", err)
	}
	o.open = true
	return nil
}

// add makes the operators known to the session that these options will make.
func (o *operators) add(opts *ortgo.SessionOptions) error {
	handle, err := handleOf(opts)
	if err != nil {
		return err
	}
	if err := failure(C.vigil_ops_add(&o.c, handle)); err != nil {
		return fmt.Errorf("cannot add operators to a session: %w", err)
	}
	return nil
}

// close frees the domain. No session may be left.
func (o *operators) close() {
	if o.open {
		C.vigil_ops_close(&o.c)
		o.open = false
	}
}

// failure takes over text from C.
func failure(text *C.char) error {
	if text == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(text))
	return errors.New(C.GoString(text))
}

// usesOperators reports whether a model may have an operator of ours in it: its name stands in the file as it is.
func usesOperators(onnx []byte) bool {
	return bytes.Contains(onnx, []byte(infer.OpL2NormalizeQuantize))
}

// ErrNoOperators means that a model has operators of ours, and the runtime was opened without them.
var ErrNoOperators = errors.New("the model has operators of ours, which this runtime has not registered")

// prepare makes the options of a session for a model and the function that tells the model's tensors.
func (r *Runtime) prepare(onnx []byte, inputs []infer.Tensor) (opts *ortgo.SessionOptions, info func() (in, out []ortgo.InputOutputInfo, err error), err error) {
	if len(onnx) == 0 {
		return nil, nil, errors.New("model of no bytes")
	}
	uses := usesOperators(onnx)
	if uses && !r.operators {
		return nil, nil, ErrNoOperators
	}
	if opts, err = r.sessionOptions(inputs); err != nil {
		return nil, nil, err
	}
	if !uses {
		return opts, func() (in, out []ortgo.InputOutputInfo, err error) { return ortgo.GetInputOutputInfoWithONNXData(onnx) }, nil
	}
	if err = env.ops.add(opts); err != nil {
		return nil, nil, errors.Join(err, opts.Destroy())
	}
	return opts, func() (in, out []ortgo.InputOutputInfo, err error) {
		err = asFile(onnx, func(path string) error {
			in, out, err = ortgo.GetInputOutputInfoWithOptions(path, opts)
			return err
		})
		return in, out, err
	}, nil
}

// asFile shows bytes as a file that lies in memory alone and is wiped after f: the binding takes options only with a path.
func asFile(data []byte, f func(path string) error) (err error) {
	fd, err := unix.MemfdCreate("model", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot make a file in memory: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Ftruncate(fd, int64(len(data))); err != nil {
		return fmt.Errorf("cannot make a file in memory: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("cannot map a file in memory: %w", err)
	}
	defer func() {
		clear(mem)
		err = errors.Join(err, unix.Munmap(mem))
	}()
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("cannot keep a model out of core dumps: %w", err)
	}
	copy(mem, data)
	return f(fmt.Sprintf("/proc/self/fd/%d", fd))
}
