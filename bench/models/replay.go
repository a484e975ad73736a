package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vigil/bench/open"
	"vigil/infer"
)

// replay is an engine that gives answers which another run wrote down, in order: under an emulator fp32 takes a minute a
// picture, and what it answers is known.
type replay struct {
	outputs []infer.Tensor
	input   []float32
	answers [][][]float32 // per sample and output
	next    int
}

// reference gives the fp32 engine, or its kept answers; where they are to be kept and are not, it makes them.
func reference(ctx context.Context, fp32 infer.Engine, m open.Model, held open.Samples, o options) (infer.Engine, error) {
	if o.keep == "" {
		return fp32, nil
	}
	path := filepath.Join(o.keep, fmt.Sprintf("fp32, %d held out, %s.raw", held.Len(), m.File))
	r := &replay{outputs: m.Outputs, input: make([]float32, m.Input.Elements())}
	for range held.Len() {
		var a [][]float32
		for _, t := range m.Outputs {
			a = append(a, make([]float32, t.Elements()))
		}
		r.answers = append(r.answers, a)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, r.record(ctx, fp32, held, path)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, a := range r.answers {
		for _, values := range a {
			if err := binary.Read(f, binary.LittleEndian, values); err != nil {
				return nil, fmt.Errorf("%s: %w: delete it", path, err)
			}
		}
	}
	return r, nil
}

// record runs fp32 on the samples and writes its answers.
func (r *replay) record(ctx context.Context, fp32 infer.Engine, held open.Samples, path string) (err error) {
	io, err := fp32.NewIO()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return errors.Join(err, io.Close())
	}
	defer func() { err = errors.Join(err, f.Close(), io.Close()) }()
	for i, a := range r.answers {
		if err := errors.Join(held.Fill(ctx, i, io.Input(0)), io.Run(ctx)); err != nil {
			return err
		}
		for k := range a {
			copy(a[k], io.Output(k))
			if err := binary.Write(f, binary.LittleEndian, a[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// NewIO implements infer.Engine; there is one IO.
func (r *replay) NewIO() (infer.IO, error) { return r, nil }

// Input implements infer.IO.
func (r *replay) Input(int) []float32 { return r.input }

// Output implements infer.IO.
func (r *replay) Output(i int) []float32 { return r.answers[r.next-1][i] }

// Run implements infer.IO.
func (r *replay) Run(context.Context) error {
	if r.next == len(r.answers) {
		return errors.New("all kept answers are used")
	}
	r.next++
	return nil
}

// Close implements infer.Engine and infer.IO.
func (r *replay) Close() error { return nil }
