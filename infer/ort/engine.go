package ort

/*
#include "ops.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"
	"golang.org/x/sys/unix"

	"vigil/infer"
)

// engine implements infer.Engine.
type engine struct {
	session         *ortgo.DynamicAdvancedSession
	inputs, outputs []infer.Tensor
	device          bool // the provider has memory of its own
}

// Close implements infer.Engine.
func (e *engine) Close() error { return e.session.Destroy() }

// NewIO implements infer.Engine.
func (e *engine) NewIO() (_ infer.IO, err error) {
	io := &bound{device: e.device}
	if io.binding, err = e.session.CreateIoBinding(); err != nil {
		return nil, fmt.Errorf("cannot bind tensors: %w", err)
	}
	for _, t := range e.inputs {
		if err = io.add(&io.in, t, io.binding.BindInput); err != nil {
			return nil, errors.Join(err, io.Close())
		}
	}
	for _, t := range e.outputs {
		if err = io.add(&io.out, t, io.binding.BindOutput); err != nil {
			return nil, errors.Join(err, io.Close())
		}
	}
	if io.cancel, err = newCanceller(); err != nil {
		return nil, errors.Join(err, io.Close())
	}
	if io.call, err = callOf(e.session, io.cancel.opts, io.binding); err != nil {
		return nil, errors.Join(err, io.Close())
	}
	return io, nil
}

// call is a run as ONNX Runtime takes it.
type call struct{ session, options, binding unsafe.Pointer }

func callOf(s *ortgo.DynamicAdvancedSession, o *ortgo.RunOptions, b *ortgo.IoBinding) (c call, err error) {
	var errs [3]error
	c.session, errs[0] = sessionOf(s)
	c.options, errs[1] = runOptionsOf(o)
	c.binding, errs[2] = bindingOf(b)
	return c, errors.Join(errs[:]...)
}

func (c *call) run() error {
	return failure(C.vigil_run(env.ops.c.api, c.session, c.options, c.binding))
}

// bound implements infer.IO.
type bound struct {
	binding *ortgo.IoBinding
	call    call
	cancel  *canceller
	in, out []buffer
	device  bool
}

// buffer is the memory of one tensor.
type buffer struct {
	name   string
	mem    []byte // mapped, page aligned, outside the Go heap
	pinned bool
	values []float32
	tensor *ortgo.Tensor[float32]
}

func (b *bound) add(list *[]buffer, t infer.Tensor, bind func(string, ortgo.Value) error) error {
	n := t.Elements()
	mem, err := unix.Mmap(-1, 0, 4*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("cannot map %d bytes for tensor %v: %w", 4*n, t, err)
	}
	*list = append(*list, buffer{name: t.Name, mem: mem})
	buf := &(*list)[len(*list)-1]
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		return fmt.Errorf("cannot keep tensor %v out of core dumps: %w", t, err)
	}
	buf.pinned = b.device && pin(mem)
	buf.values = unsafe.Slice((*float32)(unsafe.Pointer(&mem[0])), n)
	if buf.tensor, err = ortgo.NewTensor(ortgo.NewShape(t.Shape...), buf.values); err != nil {
		return fmt.Errorf("cannot make tensor %v: %w", t, err)
	}
	if err := bind(t.Name, buf.tensor); err != nil {
		return fmt.Errorf("cannot bind tensor %v: %w", t, err)
	}
	return nil
}

// Input implements infer.IO.
func (b *bound) Input(i int) []float32 { return b.in[i].values }

// Output implements infer.IO.
func (b *bound) Output(i int) []float32 { return b.out[i].values }

// Run implements infer.IO. It returns when the model is done or, after the node that is at work, when the context has ended.
func (b *bound) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.cancel.Follow(ctx); err != nil {
		return err
	}
	if b.device { // binding is what carries an input over to the device
		for i := range b.in {
			if err := b.binding.BindInput(b.in[i].name, b.in[i].tensor); err != nil {
				return fmt.Errorf("cannot copy input %q to the device: %w", b.in[i].name, err)
			}
		}
	}
	err := b.call.run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the model was stopped: %w", ctx.Err())
	}
	return fmt.Errorf("the model failed while running: %w", err)
}

// Close implements infer.IO.
func (b *bound) Close() (err error) {
	if b.cancel != nil {
		err = b.cancel.close()
	}
	err = errors.Join(err, b.binding.Destroy())
	for _, buf := range slices.Concat(b.in, b.out) {
		if buf.tensor != nil {
			err = errors.Join(err, buf.tensor.Destroy())
		}
		if buf.pinned {
			err = errors.Join(err, unpin(buf.mem))
		}
		clear(buf.mem)
		err = errors.Join(err, unix.Munmap(buf.mem))
	}
	b.in, b.out, b.cancel = nil, nil, nil
	return err
}
