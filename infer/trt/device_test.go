//go:build tensorrt

// What runs where there is a real TensorRT with a real device, and skips elsewhere.
package trt

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
)

// whole is an engine in memory.
type whole struct{ *bytes.Reader }

func (whole) Close() error { return nil }

// TestOnARealDevice builds MobileFaceNet with the library at hand and runs it: through a CUDA graph, with one copy in, one
// out and one wait, and the same answer each time.
func TestOnARealDevice(t *testing.T) {
	folder := os.Getenv("VIGIL_TRT_LIB")
	if folder == "" {
		folder = filepath.Join(infertest.Root(t), ".cache", "rtx", "lib")
	}
	l, err := Inspect(folder)
	if err != nil || l.Compute == "" || l.Parser == "" {
		t.Skipf("no TensorRT with a parser and a device: %v %v", l, err)
	}
	model, err := os.ReadFile(infertest.Data(t, "models", "mobilefacenet_foamliu.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var engine []byte
	in := []infer.Tensor{{Name: "input0", Type: "float32", Shape: []int64{1, 3, 112, 112}}}
	out := []infer.Tensor{{Name: "output0", Type: "float32", Shape: []int64{1, 128}}}
	rt, err := Open(Options{
		Library: folder,
		Alloc:   func(n int) (Memory, error) { return make(room, n), nil },
		Engines: func(context.Context, Library, []byte, []infer.Tensor) (Source, error) {
			return whole{bytes.NewReader(engine)}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = buildHere(Order{Library: folder, Inputs: in}, model, func(Step) {}, func(b Built, data []byte) error {
		engine = bytes.Clone(data)
		t.Logf("%+v", b)
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", rt.Name(), err)
	}
	e, err := rt.Load(t.Context(), model, in, out)
	if err != nil {
		t.Fatal(err)
	}
	io, err := e.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	for i := range io.Input(0) {
		io.Input(0)[i] = float32(math.Sin(float64(i) / 100))
	}
	var first []float32
	for range 5 {
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = slices.Clone(io.Output(0))
		}
		if !slices.Equal(first, io.Output(0)) || slices.ContainsFunc(first, func(v float32) bool { return math.IsNaN(float64(v)) }) || slices.Max(first) == 0 {
			t.Fatalf("answers %v, then %v", first[:4], io.Output(0)[:4])
		}
	}
	t.Logf("%s: %v...; counts %+v; no graph: %q", rt.Name(), first[:4], rt.Counts(), io.(*bound).NoGraph())
	if c := rt.Counts(); c.Syncs != 5 || c.CopiesIn != 5 || c.CopiesOut != 5 {
		t.Errorf("counts %+v", c)
	}
	if err := errors.Join(io.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}
