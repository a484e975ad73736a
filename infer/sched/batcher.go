package sched

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"vigil/infer"
)

// Batcher is an infer.Engine over one model loaded at several batch sizes, for pipelines that share it: runs that are
// wanted at the same time are merged. Class and deadline come with the context (WithClass). A run alone works on the
// caller's own bound tensors; a larger batch is gathered into tensors of the Batcher, which are wiped after it, and
// scattered.
//
// Whether merging pays is measured when the model is loaded. Where it does not, which is the rule on a CPU, the larger
// engines are closed at once and every run goes straight to the engine on the caller's goroutine, without a queue.
type Batcher struct {
	sizes   []int // that are loaded, ascending from 1
	engines []infer.Engine
	gather  [][]infer.IO // per worker, per size above 1
	inputs  []infer.Tensor
	outputs []infer.Tensor
	queue   *Scheduler[*batchIO] // nil where merging does not pay
	curve   Curve

	mu   sync.Mutex
	open int // IOs
}

// BatcherOptions are what LoadBatcher needs beside the model.
type BatcherOptions struct {
	Name    string
	Sizes   []int            // ascending from 1; nil means 1, 2, 4, 8
	Workers int              // runs at a time; 0 means 1
	Places  int              // runs that may wait; 0 means 64
	Curve   Curve            // of a run before: it is believed, and nothing is measured
	Now     func() time.Time // nil is time.Now
}

// measured is how often each size runs when it is loaded; the first run is not counted.
const measured = 4

// Loader loads the model of a Batcher for n runs in one.
type Loader func(ctx context.Context, n int) (infer.Engine, error)

// OpenAxis is the Loader of a model whose leading axis is open. The bytes must stay until LoadBatcher returns.
func OpenAxis(rt infer.Runtime, onnx []byte, inputs, outputs []infer.Tensor) Loader {
	return func(ctx context.Context, n int) (infer.Engine, error) {
		return rt.Load(ctx, onnx, Batched(inputs, n), Batched(outputs, n))
	}
}

// LoadBatcher loads a model at every size and measures it. inputs and outputs are those of a run alone, with 1 in front.
func LoadBatcher(ctx context.Context, load Loader, inputs, outputs []infer.Tensor, o BatcherOptions) (_ *Batcher, err error) {
	b := &Batcher{inputs: inputs, outputs: outputs, curve: Curve{at: slices.Clone(o.Curve.at)}}
	for _, t := range slices.Concat(inputs, outputs) {
		if len(t.Shape) == 0 || t.Shape[0] != 1 {
			return nil, fmt.Errorf("cannot merge runs of a model with %v: it needs 1 in front", t)
		}
	}
	o.complete()
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	for _, n := range o.Sizes {
		e, err := load(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("batches of %d: %w", n, err)
		}
		b.sizes, b.engines = append(b.sizes, n), append(b.engines, e)
		if err := b.measure(ctx, e, n, &o); err != nil {
			return nil, fmt.Errorf("batches of %d: %w", n, err)
		}
	}
	return b, b.decide(o)
}

func (o *BatcherOptions) complete() {
	if len(o.Sizes) == 0 {
		o.Sizes = []int{1, 2, 4, 8}
	}
	if o.Places == 0 {
		o.Places = 64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Batched is the tensors of n runs in one: those of a run alone with n in front.
func Batched(ts []infer.Tensor, n int) []infer.Tensor {
	out := slices.Clone(ts)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
		out[i].Shape[0] = int64(n)
	}
	return out
}

func (b *Batcher) measure(ctx context.Context, e infer.Engine, n int, o *BatcherOptions) (err error) {
	runs := measured + 1
	if o.Curve.Known() {
		runs = 1 // the warm-up alone
	}
	io, err := e.NewIO()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, io.Close()) }()
	for i := range runs {
		start := o.Now()
		if err := io.Run(ctx); err != nil {
			return err
		}
		if i > 0 {
			b.curve.Observe(n, o.Now().Sub(start))
		}
	}
	return nil
}

// decide starts the queue if merging pays, or frees the engines of larger sizes.
func (b *Batcher) decide(o BatcherOptions) (err error) {
	options := Options{
		Name: o.Name, Workers: o.Workers, Sizes: b.sizes, Places: [Classes]int{o.Places, o.Places, o.Places}, Now: o.Now, Curve: b.curve,
	}
	if err := options.complete(); err != nil {
		return err
	}
	probe := Scheduler[*batchIO]{o: options, curve: b.curve}
	if probe.bestSize() == 1 {
		errs := []error{}
		for _, e := range b.engines[1:] {
			errs = append(errs, e.Close())
		}
		b.sizes, b.engines = b.sizes[:1], b.engines[:1]
		return errors.Join(errs...)
	}
	// A run never waits longer for company than it would take alone, so merging at most doubles its time.
	alone, _ := b.curve.Predict(1)
	options.MaxDelay = max(alone, time.Microsecond)
	for range options.Workers {
		var ios []infer.IO
		for _, e := range b.engines[1:] {
			io, err := e.NewIO()
			if err != nil {
				return errors.Join(err, closeAll(ios))
			}
			ios = append(ios, io)
		}
		b.gather = append(b.gather, ios)
	}
	b.queue, err = New[*batchIO](b, options)
	return err
}

func closeAll[C interface{ Close() error }](list []C) error {
	var errs []error
	for _, c := range list {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Pays reports whether runs are merged.
func (b *Batcher) Pays() bool { return b.queue != nil }

// Curve is what is known of the sizes.
func (b *Batcher) Curve() Curve {
	if b.queue != nil {
		return b.queue.Curve()
	}
	return b.curve
}

// Stats are those of the queue; false where there is none.
func (b *Batcher) Stats() (Stats, bool) {
	if b.queue == nil {
		return Stats{}, false
	}
	return b.queue.Stats(), true
}

// NewIO implements infer.Engine.
func (b *Batcher) NewIO() (infer.IO, error) {
	own, err := b.engines[0].NewIO()
	if err != nil || b.queue == nil {
		return own, err
	}
	b.count(1)
	return &batchIO{IO: own, b: b}, nil
}

func (b *Batcher) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open += n
	b.queue.SetSources(b.open)
}

// Close implements infer.Engine.
func (b *Batcher) Close() error {
	var errs []error
	if b.queue != nil {
		errs = append(errs, b.queue.Close())
	}
	for _, ios := range b.gather {
		errs = append(errs, closeAll(ios))
	}
	return errors.Join(append(errs, closeAll(b.engines))...)
}

// batchIO is the tensors of one pipeline.
type batchIO struct {
	infer.IO // own tensors, for one run
	b        *Batcher
	ctx      context.Context //nolint:containedctx // of the run that is going on
}

// Run implements infer.IO. Errors beside the engine's: *Refusal.
func (io *batchIO) Run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	io.ctx = ctx
	err := io.b.queue.Do(ctx, ClassOf(ctx), deadline, io)
	io.ctx = nil
	return err
}

// Close implements infer.IO.
func (io *batchIO) Close() error {
	io.b.count(-1)
	return io.IO.Close()
}

// Run implements Executor.
func (b *Batcher) Run(worker int, batch []*batchIO) error {
	if len(batch) == 1 {
		return batch[0].IO.Run(batch[0].ctx)
	}
	io := b.gather[worker][slices.Index(b.sizes, len(batch))-1]
	defer b.wipe(io)
	for t := range b.inputs {
		in, n := io.Input(t), b.inputs[t].Elements()
		for k, one := range batch {
			copy(in[k*n:][:n], one.Input(t))
		}
	}
	if err := io.Run(context.Background()); err != nil {
		return err
	}
	for t := range b.outputs {
		out, n := io.Output(t), b.outputs[t].Elements()
		for k, one := range batch {
			copy(one.Output(t), out[k*n:][:n])
		}
	}
	return nil
}

func (b *Batcher) wipe(io infer.IO) {
	for t := range b.inputs {
		clear(io.Input(t))
	}
	for t := range b.outputs {
		clear(io.Output(t))
	}
}
