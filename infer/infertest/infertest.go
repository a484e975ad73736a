// Package infertest finds what tests of recognition need and the repository does not hold: pictures, models and ONNX
// Runtime. It is imported from tests only.
//
// Promises: what is missing skips the test with one line that names the remedy; what is there but broken fails it.
// Everything returned is closed by the test's cleanup. It copies nothing and blocks only while models load.
package infertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/infer/preset"
)

// Root is the folder of go.mod, looked for upwards from the test's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// Data is the path of something in the data folder: VIGIL_DATA, or ../shared/data beside the repository.
func Data(t testing.TB, elems ...string) string {
	t.Helper()
	dir := os.Getenv("VIGIL_DATA")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "data")
	}
	path := filepath.Join(append([]string{dir}, elems...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no test data: %v: point VIGIL_DATA to the folder of models and pictures", err)
	}
	return path
}

// Runtime opens ONNX Runtime with one thread per engine.
func Runtime(t testing.TB) *ort.Runtime {
	t.Helper()
	rt, err := ort.Open(ort.Options{Library: Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Errorf("close of the runtime: %v", err)
		}
	})
	return rt
}

// Library is the path of the ONNX Runtime library.
func Library(t testing.TB) string {
	t.Helper()
	path := os.Getenv("VIGIL_ORT_LIB")
	if path == "" {
		path = filepath.Join(Root(t), ".cache", "ort", "libonnxruntime.so.1")
	}
	path, err := ort.Find(path)
	if errors.Is(err, ort.ErrNoLibrary) {
		t.Skip("no ONNX Runtime: run `make setup`, or set VIGIL_ORT_LIB")
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Model is the preset "face" over the models of the data folder.
func Model(t testing.TB) *infer.Model {
	t.Helper()
	manifest, err := preset.Load("face")
	if err != nil {
		t.Fatal(err)
	}
	m, err := infer.FromDir(os.DirFS(Data(t, "models")), manifest)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Pipeline is the face pipeline of Model on Runtime.
func Pipeline(t testing.TB) *face.Pipeline {
	t.Helper()
	m, rt := Model(t), Runtime(t)
	p, err := face.New(t.Context(), rt, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close of the pipeline: %v", err)
		}
	})
	return p
}

// Noise are random inputs of a model. It is what quant.Calibrate takes.
type Noise struct {
	n    int
	span float32
}

// NewNoise makes n samples, each value within -span and span.
func NewNoise(n int, span float32) Noise { return Noise{n, span} }

// Len is the number of samples.
func (s Noise) Len() int { return s.n }

// Fill writes sample i.
func (s Noise) Fill(_ context.Context, i int, input []float32) error {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	for k := range input {
		input[k] = s.span * (r.Float32()*2 - 1)
	}
	return nil
}
