package main

import (
	"context"
	"errors"
	"os"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/eval"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// ours are the systems of this repository that are measured beside NBIS: each gives an extractor for pictures of a
// resolution, and a function that closes it.
var ours = []struct {
	name string
	open func(ctx context.Context, ppi int) (eval.Extractor, func(), error)
}{
	{"vigil fp32", func(ctx context.Context, ppi int) (eval.Extractor, func(), error) {
		return openOurs(ctx, eval.FP32, ppi)
	}},
	{"vigil as deployed", func(ctx context.Context, ppi int) (eval.Extractor, func(), error) { return openOurs(ctx, "", ppi) }},
}

// openOurs loads the bundle in the binary: at one precision, or, for "", as the runtime chooses.
func openOurs(ctx context.Context, precision string, ppi int) (eval.Extractor, func(), error) {
	m, err := builtin.Finger()
	if err != nil {
		return nil, nil, err
	}
	if precision != "" {
		if m.Manifest, err = eval.AtPrecision(m.Manifest, precision, infer.DialectCPU); err != nil {
			return nil, nil, err
		}
	}
	rt, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return nil, nil, err
	}
	pipe, err := finger.New(ctx, rt, m)
	if err != nil {
		return nil, nil, errors.Join(err, rt.Close())
	}
	pool := sensors.NewPool(1)
	decode := func(ctx context.Context, path string) (*sensors.Frame, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return picture.Decode(ctx, pool, data)
	}
	return eval.Fingers(pipe, decode, float64(ppi)), func() { _ = errors.Join(pipe.Close(), rt.Close()) }, nil
}
