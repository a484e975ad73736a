package vnni

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"vigil/infer"
	"vigil/infer/quant"
)

// verdict says which engine runs a model on this machine.
type verdict struct {
	ours   bool
	reason string
	close  bool // so near that another race may end otherwise
}

const (
	races = 10 // runs of each, in turns; the fastest counts
	// leastAgreement is the least cosine between what both answer. Measured, they answer the same; another ONNX Runtime may
	// round a sum otherwise, which is one step of 8 bits here and there.
	leastAgreement = 0.999
	leastGain      = 1.05 // less is within the noise of the measurement
)

// race runs both engines in turns on the same numbers: random ones over all that the input's 8 bits can show.
func race(ctx context.Context, below infer.Engine, ours *engine) (v verdict, err error) {
	var ios [2]infer.IO
	defer func() {
		for _, io := range ios {
			if io != nil {
				err = errors.Join(err, io.Close())
			}
		}
	}()
	for i, e := range []infer.Engine{below, ours} {
		if ios[i], err = e.NewIO(); err != nil {
			return v, err
		}
	}
	for i, s := range ours.steps {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		for k := range ios[0].Input(i) {
			x := s.low + 255*s.step*r.Float32()
			ios[0].Input(i)[k], ios[1].Input(i)[k] = x, x
		}
	}
	var best [2]time.Duration // what others do to the machine meanwhile only adds
	for k := range races {
		for j := range 2 {
			i := (j + k) % 2
			start := time.Now()
			if err := ios[i].Run(ctx); err != nil {
				return v, err
			}
			if took := time.Since(start); best[i] == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	for i := range ours.outputs {
		if cos := quant.Cosine(ios[0].Output(i), ios[1].Output(i)); !(cos >= leastAgreement) {
			return verdict{reason: fmt.Sprintf("our 8-bit kernels do not agree with it on %s (cosine %.5f, %g is asked)", ours.outputs[i].Name, cos, leastAgreement)}, nil
		}
	}
	gain := best[0].Seconds() / best[1].Seconds()
	if gain < leastGain {
		return verdict{close: gain > 1/leastGain, reason: fmt.Sprintf("our 8-bit kernels are no faster (%.2f times as fast, %g is asked)", gain, leastGain)}, nil
	}
	return verdict{ours: true, reason: fmt.Sprintf("VNNI kernels: they answer the same as ONNX Runtime and are %.2f times as fast", gain)}, nil
}
