package main

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"vigil/bench/open"
	"vigil/infer/ort"
	"vigil/infer/quant"
)

// mostLoss is what `vigild models quantize` allows where it is not told otherwise: 0.1 percentage points.
const mostLoss = 0.001

// labelled judges the embedder as a bundle's gate does: by its accuracy on labelled pairs, and its speed.
func labelled(ctx context.Context, rt *ort.Runtime, o options) error {
	m := open.Models()[slices.IndexFunc(open.Models(), func(m open.Model) bool { return m.File == open.Embedder })]
	pairs, err := open.AlignedPairs()
	if err != nil {
		return err
	}
	fp32, err := m.Read()
	if err != nil {
		return err
	}
	int8, err := quantised(ctx, rt, m, fp32, o)
	if err != nil {
		return err
	}
	reference, err := kept(filepath.Join(o.keep, "fp32, aligned pairs.gob"), o.keep != "", func() (open.Embeddings, error) {
		return m.Embed(ctx, rt, fp32, pairs, counter("fp32"))
	})
	if err != nil {
		return err
	}
	race, err := m.Race(ctx, rt, [2][]byte{fp32, int8}, o.runs)
	if err != nil {
		return err
	}
	got, err := m.Embed(ctx, rt, int8, pairs, counter("INT8"))
	if err != nil {
		return err
	}
	mean, worst, rms := reference.Difference(got, pairs)
	evidence := quant.Evidence{Metric: "verification accuracy", FP32: reference.Accuracy(pairs), Variant: got.Accuracy(pairs), Percent: true, Latency: race}
	g, _ := quant.Judge(evidence, quant.Limits{MostLoss: mostLoss}, false)
	fmt.Printf("%s, %d aligned pairs: fp32 %.2f %%, INT8 %.2f %%; cosine to fp32 %.4f, worst %.4f; scores differ by %.4f rms\n%s: %s\n",
		m.File, len(pairs), 100*evidence.FP32, 100*evidence.Variant, mean, worst, rms, g.Verdict, g.Reason)
	return nil
}

// counter shows how far a precision is, on the standard error.
func counter(what string) func(done, of int) {
	return func(done, of int) {
		if done%100 == 0 || done == of {
			fmt.Fprintf(os.Stderr, "%s: %d of %d pictures\n", what, done, of)
		}
	}
}

// kept reads what an earlier run wrote, or makes and writes it.
func kept(path string, keep bool, produce func() (open.Embeddings, error)) (e open.Embeddings, err error) {
	if !keep {
		return produce()
	}
	f, err := os.Open(path)
	if err == nil {
		return e, errors.Join(gob.NewDecoder(f).Decode(&e), f.Close())
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if e, err = produce(); err != nil {
		return nil, err
	}
	if f, err = os.Create(path); err != nil {
		return nil, err
	}
	return e, errors.Join(gob.NewEncoder(f).Encode(e), f.Close())
}
