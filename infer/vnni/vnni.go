// Package vnni runs 8-bit models of the CPU's dialect on kernels of ours (kernels/int8), over a runtime that runs everything else.
//
// Promises: Over is the runtime below it for every model that the kernels do not take, or on which they are no better: a model is
// given to them only after it was run by both on this machine, they agreed, and the kernels were faster. Engines say which of
// them was taken and why (Kernels). What a run answers is what ONNX Runtime answers, bit for bit but for the last bit of a
// Sigmoid. Run blocks its goroutine in C for the work alone, on one thread, and ends between two layers when its context does.
//
// What Load copies of a model's weights beside the packed ones is wiped before it returns.
//
// The engine below is loaded first and checks the model's tensors; it is closed where the kernels take over. An engine owns its
// packed weights, which Close wipes; an IO owns its tensors and activations, outside Go's heap, left out of core dumps and wiped
// by Close. The runtime below belongs to the Runtime over it and is closed with it.
package vnni

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"vigil/infer"
	"vigil/kernels/int8"
)

// Runtime is a runtime with our kernels over it. It implements infer.Runtime and infer.Inspector.
type Runtime struct {
	below infer.Runtime

	mu   sync.Mutex
	told map[string]verdict // of models that were raced, by key
}

// mostTold bounds the verdicts that are kept; more models than that are raced each time.
const mostTold = 64

// Over puts our kernels over a runtime that runs infer.DialectCPU on this processor. Where that lacks the instructions it is the
// runtime itself.
func Over(below infer.Runtime) infer.Runtime {
	if int8.Have() != nil {
		return below
	}
	return &Runtime{below: below, told: map[string]verdict{}}
}

// Name implements infer.Runtime.
func (r *Runtime) Name() string { return r.below.Name() + " with VNNI kernels" }

// Dialects implements infer.Runtime.
func (r *Runtime) Dialects() []string { return r.below.Dialects() }

// Close implements infer.Runtime.
func (r *Runtime) Close() error { return r.below.Close() }

// Inspect implements infer.Inspector. Errors: the runtime below is none.
func (r *Runtime) Inspect(onnx []byte) (inputs, outputs []infer.Tensor, err error) {
	i, ok := r.below.(infer.Inspector)
	if !ok {
		return nil, nil, fmt.Errorf("%s cannot name a model's tensors", r.below.Name())
	}
	return i.Inspect(onnx)
}

// Load implements infer.Runtime.
func (r *Runtime) Load(ctx context.Context, onnx []byte, inputs, outputs []infer.Tensor) (infer.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%x %v %v", sha256.Sum256(onnx), inputs, outputs)
	r.mu.Lock()
	v, known := r.told[key]
	r.mu.Unlock()
	if known && v.ours {
		e, err := load(onnx, inputs, outputs)
		if err == nil {
			e.reason = v.reason
			return e, nil
		}
		v = verdict{reason: err.Error()} // no memory, say: what is below may do with less
	}
	below, err := r.below.Load(ctx, onnx, inputs, outputs)
	if err != nil || known {
		return r.explained(below, v.reason), err
	}
	ours, err := load(onnx, inputs, outputs)
	if err != nil {
		if errors.Is(err, errFloat) {
			return r.explained(below, "the model is in float"), nil
		}
		return r.explained(below, err.Error()), nil
	}
	if v, err = race(ctx, below, ours); err != nil {
		return nil, errors.Join(err, ours.Close(), below.Close())
	}
	r.keep(key, v)
	if !v.ours {
		return r.explained(below, v.reason), ours.Close()
	}
	ours.reason = v.reason
	return ours, below.Close()
}

// keep remembers a verdict, if another race would end with the same.
func (r *Runtime) keep(key string, v verdict) {
	if v.close {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) < mostTold {
		r.told[key] = v
	}
}

// told is an engine of the runtime below, with why it was taken.
type told struct {
	infer.Engine
	reason string
}

// explained gives an engine its reason; without an engine it is none.
func (r *Runtime) explained(e infer.Engine, reason string) infer.Engine {
	if e == nil {
		return nil
	}
	return &told{e, r.below.Name() + ": " + reason}
}

// Kernels implements infer.Explained.
func (t *told) Kernels() string { return t.reason }
