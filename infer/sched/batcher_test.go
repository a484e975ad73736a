package sched_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/infertest/fake"
	"vigil/infer/quant/onnx"
	"vigil/infer/sched"
)

func row(name string, width int64) []infer.Tensor {
	return []infer.Tensor{{Name: name, Type: "float32", Shape: []int64{1, width}}}
}

// fill makes an input of its own for every seed.
func fill(in []float32, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range in {
		in[i] = r.Float32()*2 - 1
	}
}

// conformance runs many pipelines on one Batcher and compares every answer with that of a run alone, bit for bit unless
// close is given.
func conformance(t *testing.T, load sched.Loader, in, out []infer.Tensor, pipelines, runs int, close func(a, b float32) bool) {
	t.Helper()
	alone, err := load(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	one, err := alone.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	want := make([][]float32, pipelines*runs)
	for i := range want {
		fill(one.Input(0), uint64(i))
		if err := one.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want[i] = slices.Clone(one.Output(0))
	}
	if err := errors.Join(one.Close(), alone.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := sched.LoadBatcher(t.Context(), load, in, out, sched.BatcherOptions{Name: "embed", Curve: flat()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for p := range pipelines {
		io, err := b.NewIO()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer func() {
				if err := io.Close(); err != nil {
					t.Error(err)
				}
			}()
			for r := range runs {
				i := p*runs + r
				fill(io.Input(0), uint64(i))
				if err := io.Run(t.Context()); err != nil {
					t.Errorf("run %d: %v", i, err)
					return
				}
				if got := io.Output(0); !slices.EqualFunc(got, want[i], close) {
					t.Errorf("run %d: %v..., alone %v...", i, got[:4], want[i][:4])
				}
			}
		})
	}
	wg.Wait()
	st, _ := b.Stats()
	t.Logf("batches of %v: %v", st.Batch.Bounds, st.Batch.Counts)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if merged := st.Batch.Sum - float64(st.Batch.Count); merged == 0 {
		t.Error("no runs were merged: nothing was tested")
	}
}

// flat is the curve of an engine that runs eight as fast as one.
func flat() (c sched.Curve) {
	for _, n := range []int{1, 2, 4, 8} {
		for range 32 {
			c.Observe(n, 100*time.Millisecond)
		}
	}
	return c
}

func same(a, b float32) bool { return a == b }

func TestBatcherEqualsSingleRuns(t *testing.T) {
	rt := fake.New()
	const width = 64
	rt.Play("rows", func(in, out [][]float32) error { // each row of its own: y = x * x - x
		for i, v := range in[0] {
			out[0][i] = v*v - v
		}
		return nil
	})
	load := sched.OpenAxis(rt, []byte("rows"), row("x", width), row("y", width))
	conformance(t, load, row("x", width), row("y", width), 8, 50, same)
	if n := rt.Leaked(); n != 0 {
		t.Errorf("%d engines and tensors are open", n)
	}
}

// TestBatcherEqualsSingleRunsOnONNXRuntime is the same with the embedder of the preset.
func TestBatcherEqualsSingleRunsOnONNXRuntime(t *testing.T) {
	rt := infertest.Runtime(t)
	m := infertest.Model(t)
	s := m.Manifest.Stage("embed")
	w, err := m.Open(s.File)
	if err != nil {
		t.Fatal(err)
	}
	load := func(ctx context.Context, n int) (infer.Engine, error) {
		g, err := onnx.Read(w.Bytes())
		if err != nil {
			return nil, err
		}
		if err := errors.Join(g.Pin(s.Inputs[0].Name, s.Inputs[0].Shape), g.SetBatch(int64(n))); err != nil {
			return nil, err
		}
		data, err := g.Write()
		if err != nil {
			return nil, err
		}
		return rt.Load(ctx, data, sched.Batched(s.Inputs, n), sched.Batched(s.Outputs, n))
	}
	conformance(t, load, s.Inputs, s.Outputs, 4, 4, same)
}

func TestWhereMergingDoesNotPayThereIsNoQueue(t *testing.T) {
	rt := fake.New()
	sink := float32(0)
	rt.Play("steep", func(in, _ [][]float32) error { // as long for eight as eight times one
		for range 2000 {
			for _, v := range in[0] {
				sink += v
			}
		}
		return nil
	})
	b, err := sched.LoadBatcher(t.Context(), sched.OpenAxis(rt, []byte("steep"), row("x", 512), row("y", 1)), row("x", 512), row("y", 1),
		sched.BatcherOptions{Sizes: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	if b.Pays() {
		t.Error("batches of one are merged")
	}
	if _, ok := b.Stats(); ok {
		t.Error("there is a queue")
	}
	io, err := b.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	if err := io.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(io.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if n := rt.Leaked(); n != 0 {
		t.Errorf("%d engines and tensors are open", n)
	}
}

func TestBatcherRefuses(t *testing.T) {
	rt := fake.New()
	broken := errors.New("no memory left on the device")
	rt.Play("broken", func(in, _ [][]float32) error {
		if len(in[0]) > 8 {
			return broken
		}
		return nil
	})
	load := sched.OpenAxis(rt, []byte("broken"), row("x", 4), row("y", 4))
	if _, err := sched.LoadBatcher(t.Context(), load, row("x", 4), row("y", 4), sched.BatcherOptions{}); !errors.Is(err, broken) {
		t.Errorf("a size that cannot run: %v", err)
	}
	two := []infer.Tensor{{Name: "x", Type: "float32", Shape: []int64{2, 4}}}
	if _, err := sched.LoadBatcher(t.Context(), load, two, row("y", 4), sched.BatcherOptions{}); err == nil {
		t.Error("a model of two rows was taken")
	}
	if n := rt.Leaked(); n != 0 {
		t.Errorf("%d engines and tensors are open", n)
	}
	ok := fake.New()
	ok.Play("same", func(in, out [][]float32) error { copy(out[0], in[0]); return nil })
	b, err := sched.LoadBatcher(t.Context(), sched.OpenAxis(ok, []byte("same"), row("x", 4), row("y", 4)), row("x", 4), row("y", 4), sched.BatcherOptions{Curve: flat()})
	if err != nil {
		t.Fatal(err)
	}
	io, err := b.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := io.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that had ended: %v", err)
	}
	if err := errors.Join(io.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if n := ok.Leaked(); n != 0 {
		t.Errorf("%d engines and tensors are open", n)
	}
}
