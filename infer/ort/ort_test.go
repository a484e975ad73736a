package ort_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
)

// embedder is the embedding model of the preset with its tensors.
func embedder(t testing.TB) (data []byte, in, out []infer.Tensor) {
	t.Helper()
	m := infertest.Model(t)
	s := m.Manifest.Stage("embed")
	w, err := m.Open(s.File)
	if err != nil {
		t.Fatal(err)
	}
	return w.Bytes(), s.Inputs, s.Outputs
}

func mustClose(t testing.TB, what string, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close of %s: %v", what, err)
	}
}

// loaded is the embedder on a runtime with one bound IO, all closed at the end.
func loaded(t testing.TB) infer.IO {
	t.Helper()
	data, in, out := embedder(t)
	eng, err := infertest.Runtime(t).Load(t.Context(), data, in, out)
	if err != nil {
		t.Fatal(err)
	}
	clear(data) // the bytes may be wiped as soon as Load returns
	io, err := eng.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustClose(t, "io", io); mustClose(t, "engine", eng) })
	return io
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "libonnxruntime.so.1")
	if err := os.WriteFile(lib, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, env string
		want            string // of the error; "" finds lib
	}{
		{"by path", lib, "", ""},
		{"by environment", "", lib, ""},
		{"path before environment", lib, "/no/such/lib", ""},
		{"path missing", "/no/such/lib", lib, "/no/such/lib"},
		{"environment missing", "", "/no/such/env", "/no/such/env"},
	} {
		t.Setenv("VIGIL_ORT_LIB", c.env)
		got, err := ort.Find(c.path)
		if c.want == "" && (err != nil || got != lib) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if c.want != "" && (!errors.Is(err, ort.ErrNoLibrary) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "VIGIL_ORT_LIB")) {
			t.Errorf("%s: %v, want that %s is missing and the remedy", c.name, err, c.want)
		}
	}
}

func TestFindSaysWhatItTried(t *testing.T) {
	t.Setenv("VIGIL_ORT_LIB", "")
	t.Chdir(t.TempDir())
	path, err := ort.Find("")
	if err == nil {
		t.Skipf("ONNX Runtime is installed at %s", path)
	}
	if !errors.Is(err, ort.ErrNoLibrary) || !strings.Contains(err.Error(), "/usr/lib/vigil/") || !strings.Contains(err.Error(), "make setup") {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := ort.Open(ort.Options{Library: "/no/such/lib"}); !errors.Is(err, ort.ErrNoLibrary) {
		t.Errorf("missing: %v", err)
	}
	garbage := filepath.Join(t.TempDir(), "libonnxruntime.so.1")
	if err := os.WriteFile(garbage, []byte("no library"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a failed Open leaves nothing behind
		if _, err := ort.Open(ort.Options{Library: garbage}); err == nil || !strings.Contains(err.Error(), garbage) {
			t.Errorf("garbage: %v, want an error that names it", err)
		}
	}
	rt := infertest.Runtime(t) // and a good one opens behind it
	if !strings.HasPrefix(rt.Name(), "onnxruntime 1.") {
		t.Errorf("name %q", rt.Name())
	}
	if _, err := ort.Open(ort.Options{Library: garbage}); err == nil || !strings.Contains(err.Error(), "already loaded") {
		t.Errorf("a second library: %v", err)
	}
}

func TestRuntimesShareTheLibrary(t *testing.T) {
	data, in, out := embedder(t)
	lib := infertest.Library(t)
	link := filepath.Join(t.TempDir(), "link.so") // the same file by another name
	if err := os.Symlink(lib, link); err != nil {
		t.Fatal(err)
	}
	first, err := ort.Open(ort.Options{Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	second, err := ort.Open(ort.Options{Library: link, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, "first", first)
	mustClose(t, "first again", first) // must not take the second's share
	eng, err := second.Load(t.Context(), data, in, out)
	if err != nil {
		t.Fatalf("the second runtime after the first closed: %v", err)
	}
	mustClose(t, "engine", eng)
	mustClose(t, "second", second)
}

func TestRunIsRepeatable(t *testing.T) {
	io := loaded(t)
	in := io.Input(0)
	for i := range in {
		in[i] = float32(math.Sin(float64(i)))
	}
	var first []float32
	for range 3 {
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = append(first, io.Output(0)...)
		}
		for i, v := range io.Output(0) {
			if v != first[i] || v != v {
				t.Fatalf("output %d is %v, first %v", i, v, first[i])
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := io.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestEnginesServeManyAtOnce(t *testing.T) {
	data, in, out := embedder(t)
	eng, err := infertest.Runtime(t).Load(t.Context(), data, in, out)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, "engine", eng)
	var results [4][]float32
	var wg sync.WaitGroup
	for g := range results {
		wg.Go(func() {
			io, err := eng.NewIO()
			if err != nil {
				t.Error(err)
				return
			}
			defer mustClose(t, "io", io)
			for n := range 5 {
				for i := range io.Input(0) {
					io.Input(0)[i] = float32(n)
				}
				if err := io.Run(context.Background()); err != nil {
					t.Error(err)
				}
			}
			results[g] = append(results[g], io.Output(0)...)
		})
	}
	wg.Wait()
	for g := range results {
		for i, v := range results[g] {
			if v != results[0][i] {
				t.Fatalf("goroutine %d: output %d is %v, want %v", g, i, v, results[0][i])
			}
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	data, in, out := embedder(t)
	rt := infertest.Runtime(t)
	with := func(list []infer.Tensor, change func(*infer.Tensor)) []infer.Tensor {
		list = append([]infer.Tensor(nil), list...)
		change(&list[0])
		return list
	}
	half := data[:len(data)/2]
	for _, c := range []struct {
		name    string
		data    []byte
		in, out []infer.Tensor
		want    string
	}{
		{"no bytes", nil, in, out, "no bytes"},
		{"garbage", []byte("this is no model at all"), in, out, "refuses the model"},
		{"zeros", make([]byte, 4096), in, out, "refuses the model"},
		{"cut off", half, in, out, "refuses the model"},
		{"input of another name", data, with(in, func(t *infer.Tensor) { t.Name = "image" }), out, `no input "image"`},
		{"output of another name", data, in, with(out, func(t *infer.Tensor) { t.Name = "vector" }), `no output "vector"`},
		{"input of another shape", data, with(in, func(t *infer.Tensor) { t.Shape = []int64{1, 3, 112, 96} }), out, "[1 3 112 96]"},
		{"input of another rank", data, with(in, func(t *infer.Tensor) { t.Shape = []int64{3, 112, 112} }), out, "[3 112 112]"},
		{"output of another shape", data, in, with(out, func(t *infer.Tensor) { t.Shape = []int64{1, 512} }), "[1 512]"},
		{"no inputs", data, nil, out, "1 inputs"},
		{"input twice", data, append(append([]infer.Tensor{}, in...), in...), out, "inputs"},
		{"batch of two", data, with(in, func(t *infer.Tensor) { t.Shape = []int64{2, 3, 112, 112} }), out, "[2 3 112 112]"},
	} {
		eng, err := rt.Load(t.Context(), c.data, c.in, c.out)
		if err == nil || eng != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
		if eng != nil {
			mustClose(t, c.name, eng)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rt.Load(ctx, data, in, out); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// TestModelThatLoadsAndCannotRun: the fixture's weights are quantised in a way that the runtime accepts and then refuses.
func TestModelThatLoadsAndCannotRun(t *testing.T) {
	data, err := os.ReadFile(infertest.Data(t, "models", "fixtures", "face_detection_yunet_2023mar_int8bq.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	in := []infer.Tensor{{Name: "input", Type: "float32", Shape: []int64{1, 3, 640, 640}}}
	out := []infer.Tensor{{Name: "cls_8", Type: "float32", Shape: []int64{1, 6400, 1}}}
	eng, err := infertest.Runtime(t).Load(t.Context(), data, in, out)
	if err != nil {
		t.Fatalf("it must load: %v", err)
	}
	defer mustClose(t, "engine", eng)
	io, err := eng.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, "io", io)
	if err := io.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "failed while running") {
		t.Errorf("run: %v", err)
	}
}

// resident is the resident memory of the process in KiB and its number of open files.
func resident(t *testing.T) (kib, files int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("no /proc to measure with: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			if kib, err = strconv.Atoi(f[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return kib, len(fds)
}

func TestLoadingAndUnloadingLeavesNothingBehind(t *testing.T) {
	data, in, out := embedder(t)
	rt := infertest.Runtime(t)
	cycle := func() {
		eng, err := rt.Load(t.Context(), data, in, out)
		if err != nil {
			t.Fatal(err)
		}
		io, err := eng.NewIO()
		if err != nil {
			t.Fatal(err)
		}
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, "io", io)
		mustClose(t, "engine", eng)
		if _, err := rt.Load(t.Context(), data[:1000], in, out); err == nil { // failures too
			t.Fatal("half a model was loaded")
		}
	}
	for range 10 { // the allocators settle
		cycle()
	}
	before, files := resident(t)
	for range 50 {
		cycle()
	}
	after, filesAfter := resident(t)
	t.Logf("resident %d KiB before, %d KiB after; %d open files before, %d after", before, after, files, filesAfter)
	if after > before+24<<10 { // the model alone is 4 MiB: leaking it would be 200
		t.Errorf("resident memory grew from %d to %d KiB", before, after)
	}
	if filesAfter > files {
		t.Errorf("open files grew from %d to %d", files, filesAfter)
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	io := loaded(t)
	ctx := t.Context()
	if n := testing.AllocsPerRun(20, func() {
		if err := io.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func BenchmarkRun(b *testing.B) {
	io := loaded(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := io.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
