package ort_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"vigil/infer/infertest"
	"vigil/infer/quant/onnx"
)

// longModel multiplies a square matrix by another many times: seconds of work in many nodes.
func longModel(t testing.TB, size int64, nodes int) []byte {
	t.Helper()
	m := &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{"w": onnx.FloatTensor(make([]float32, size*size), size, size)},
		Inputs:  []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(size, size)}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(size, size)}}}
	from := "x"
	for i := range nodes {
		to := fmt.Sprint("t", i)
		if i == nodes-1 {
			to = "y"
		}
		m.Nodes = append(m.Nodes, &onnx.Node{Name: to, Op: "MatMul", Inputs: []string{from, "w"}, Outputs: []string{to}})
		from = to
	}
	return write(t, m)
}

func TestRunEndsWithItsContext(t *testing.T) {
	const size = 768
	rt := infertest.Runtime(t)
	io := openIO(t, rt, longModel(t, size, 400), size, size)
	for range 2 { // the flag of the first must not end the second before it begins
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(20*time.Millisecond, cancel)
		if err := io.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a run of seconds, cancelled: %v", err)
		}
		timer.Stop()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := io.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a run of seconds with a deadline: %v", err)
	}
}

func TestRunAfterACancelledOne(t *testing.T) {
	rt := infertest.Runtime(t)
	io := openIO(t, rt, plainModel(t, 2, 2), 2, 2)
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		copy(io.Input(0), []float32{float32(i), 1, 2, 3})
		if err := io.Run(ctx); err != nil || !slices.Equal(io.Output(0), io.Input(0)) {
			t.Fatalf("run %d: %v %v", i, io.Output(0), err)
		}
		cancel() // while the IO still watches it
	}
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		n := testing.AllocsPerRun(100, func() {
			if err := io.Run(ctx); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations a run", n)
		}
	}
}
