package vnni

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"vigil/infer"
	"vigil/kernels/int8"
)

// engine is a model on our kernels. It implements infer.Engine and infer.Explained.
type engine struct {
	network         *int8.Network
	inputs, outputs []infer.Tensor
	steps           []span // of the inputs
	reason          string
}

// span is the numbers that an input's 8 bits can show.
type span struct{ low, step float32 }

// load compiles a model. Errors: ErrGraph, limits of the kernels.
func load(onnx []byte, inputs, outputs []infer.Tensor) (*engine, error) {
	p, err := compile(onnx, inputs, outputs)
	if err != nil {
		return nil, err
	}
	defer wipe(p.copies)
	e := &engine{inputs: inputs, outputs: outputs, steps: make([]span, len(inputs))}
	for _, l := range p.layers {
		if l.Kind == int8.Quantize {
			e.steps[l.In] = span{-float32(l.OutZero) * l.Scale, l.Scale}
		}
	}
	if e.network, err = int8.New(p.layers, p.tensors); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGraph, err)
	}
	return e, nil
}

// Kernels implements infer.Explained.
func (e *engine) Kernels() string { return e.reason }

// Close implements infer.Engine.
func (e *engine) Close() error {
	e.network.Close()
	return nil
}

// NewIO implements infer.Engine.
func (e *engine) NewIO() (infer.IO, error) {
	var sizes []int
	for _, t := range slices.Concat(e.inputs, e.outputs) {
		sizes = append(sizes, t.Elements())
	}
	arena, err := e.network.NewArena(sizes)
	if err != nil {
		return nil, err
	}
	b := &bound{network: e.network, arena: arena, stopper: infer.Stopper{Set: arena.Stop, Clear: arena.Clear}}
	for i := range sizes {
		if i < len(e.inputs) {
			b.in = append(b.in, arena.Float(i))
		} else {
			b.out = append(b.out, arena.Float(i))
		}
	}
	return b, nil
}

// bound implements infer.IO.
type bound struct {
	network *int8.Network
	arena   *int8.Arena
	in, out [][]float32
	stopper infer.Stopper
}

// Input implements infer.IO.
func (b *bound) Input(i int) []float32 { return b.in[i] }

// Output implements infer.IO.
func (b *bound) Output(i int) []float32 { return b.out[i] }

// Run implements infer.IO. It returns when the model is done or, after the layer that is at work, when the context has ended.
func (b *bound) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.stopper.Follow(ctx); err != nil {
		return err
	}
	if !b.network.Run(b.arena) {
		return fmt.Errorf("the model was stopped: %w", ctx.Err())
	}
	return nil
}

// Close implements infer.IO.
func (b *bound) Close() error {
	b.in, b.out = nil, nil
	return errors.Join(b.stopper.Forget(), b.arena.Close())
}
