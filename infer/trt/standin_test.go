//go:build tensorrt

package trt_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/infertest"
	"vigil/infer/trt"
)

// generations of headers with a version of the library that a stand-in says it is. 10.3 is JetPack 6's: it has no stream
// reader that every later one has.
var generations = []struct {
	name, headers, library string
	number, version        int
	streams                bool
}{
	{"10.3", ".cache/trt/headers/TRT-Enterprise-10.16", "libnvinfer.so.10", 10, 100300, false},
	{"10.16", ".cache/trt/headers/TRT-Enterprise-10.16", "libnvinfer.so.10", 10, 101601, true},
	{"11.4", ".cache/rtx/headers/TRT-Enterprise-11.4", "libnvinfer.so.11", 11, 110400, true},
	{"rtx", ".cache/rtx/headers/TRT-RTX-1.7", "libtensorrt_rtx.so.1", 1, 10701, true},
}

// compiled compiles a stand-in once for its content and these arguments and returns the library's path.
func compiled(t *testing.T, source string, args ...string) string {
	t.Helper()
	root := infertest.Root(t)
	data, err := os.ReadFile(filepath.Join("testdata", "standin", source))
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %q", data, args)
	out := filepath.Join(root, ".cache", "trt", "bin", fmt.Sprintf("%s-%x.so", source, h.Sum(nil)[:8]))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	compiler := "g++"
	if strings.HasSuffix(source, ".c") {
		compiler = "gcc"
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("no %s to compile the stand-in with: run `make setup`", compiler)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	part := fmt.Sprintf("%s.%d", out, os.Getpid())
	all := append([]string{"-O1", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", part, filepath.Join("testdata", "standin", source)}, args...)
	if text, err := exec.CommandContext(t.Context(), compiler, all...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", compiler, all, err, text)
	}
	if err := os.Rename(part, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// link puts a library into a folder under a name.
func link(t *testing.T, dir, name, library string) {
	t.Helper()
	if err := os.Symlink(library, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// copyHeaders copies the headers of a folder: they include each other from where they lie.
func copyHeaders(t *testing.T, from, to string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(from, "*.h"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		data, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(f)), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// standIn makes a folder with the stand-ins of TensorRT and of the CUDA runtime.
func standIn(t *testing.T, g int) string {
	t.Helper()
	gen := generations[g]
	headers := filepath.Join(infertest.Root(t), gen.headers)
	impl, err := os.ReadFile(filepath.Join(headers, "NvInferImpl.h"))
	if err != nil {
		t.Skipf("no headers of TensorRT %s: run scripts/trt, it says what it cannot fetch", gen.name)
	}
	own := filepath.Join(infertest.Root(t), ".cache", "trt", "standin-"+gen.name)
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	trapped := regexp.MustCompile(`(?s)class V(Runtime|CudaEngine|ExecutionContext) .*?\n};`).ReplaceAllFunc(impl, func(class []byte) []byte {
		return regexp.MustCompile(`=\s*0;`).ReplaceAll(class, []byte("{ __builtin_trap(); }"))
	})
	copyHeaders(t, headers, own)
	if err := os.WriteFile(filepath.Join(own, "NvInferImpl.h"), trapped, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link(t, dir, gen.library, compiled(t, "runtime.cc", "-std=c++17", "-Wno-unused-parameter", "-fvisibility=hidden", "-isystem", own,
		"-isystem", filepath.Dir(headers), fmt.Sprint("-DVT_GEN=", gen.number), fmt.Sprint("-DVT_VERSION=", gen.version)))
	cuda := os.Getenv("VIGIL_REAL_CUDART") // the same test on a real device: see the README of this test in ARCHITECTURE.md
	if cuda == "" {
		cuda = compiled(t, "cudart.c")
	}
	link(t, dir, "libcudart.so.12", cuda)
	return dir
}

// memory is an allocator for tests that counts what is open.
type memory struct {
	b    []byte
	open *int
}

func (m *memory) Bytes() []byte { return m.b }
func (m *memory) Close() error  { clear(m.b); *m.open--; return nil }

func alloc(open *int) trt.Alloc {
	return func(n int) (trt.Memory, error) { *open++; return &memory{make([]byte, n), open}, nil }
}

// source is an engine that notes how it is read.
type source struct {
	data   []byte
	reads  []int
	closed int
	fail   error
}

func (s *source) Size() int64 { return int64(len(s.data)) }
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	s.reads = append(s.reads, len(p))
	return copy(p, s.data[off:]), s.fail
}
func (s *source) Close() error { s.closed++; return nil }

// engineText is an engine of the stand-in with padding, so that it does not fit one read.
func engineText(lines ...string) []byte {
	return []byte("VIGIL-STAND-IN\n" + strings.Join(lines, "\n") + "\nend\n" + strings.Repeat("padding ", 20_000))
}

var (
	picture = infer.Tensor{Name: "data", Type: "float32", Shape: []int64{2, 3}}
	scores  = infer.Tensor{Name: "scores", Type: "float32", Shape: []int64{2, 3}}
	twice   = infer.Tensor{Name: "twice", Type: "float32", Shape: []int64{12}}
)

// opened is a runtime on the stand-in whose engines all come from src.
func opened(t *testing.T, dir string, src *source, open *int) *trt.Runtime {
	t.Helper()
	rt, err := trt.Open(trt.Options{Library: dir, Alloc: alloc(open), Engines: func(context.Context, []byte, []infer.Tensor) (trt.Source, error) { return src, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return rt
}

// lines are the lines of the trace since the last call.
func lines(t *testing.T, path string) (out []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(data)), " ", ":"))
}

func frame(t *testing.T, io infer.IO, first float32) {
	t.Helper()
	for k := range io.Input(0) {
		io.Input(0)[k] = first + float32(k)
	}
	if err := io.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{6, 12} {
		if len(io.Output(i)) != n {
			t.Fatalf("output %d has %d values", i, len(io.Output(i)))
		}
		for k, v := range io.Output(i) {
			if want := first + float32(k%6); v != want {
				t.Fatalf("output %d: %v, value %d should be %v", i, io.Output(i), k, want)
			}
		}
	}
}

// TestOneWayOverTheBus: through NVIDIA's own virtual tables of every generation, the input crosses once, each output comes
// back once, the host waits once, and it is all one CUDA graph. The counts are the stand-in's; the runtime's agree.
func TestOneWayOverTheBus(t *testing.T) {
	for g, gen := range generations {
		t.Run(gen.name, func(t *testing.T) {
			dir := standIn(t, g)
			trace := filepath.Join(t.TempDir(), "trace")
			t.Setenv("VIGIL_STANDIN_TRACE", trace)
			open := 0
			src := &source{data: engineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 64")}
			rt := opened(t, dir, src, &open)
			if !strings.Contains(rt.Name(), "stand-in") {
				t.Errorf("the name hides that it is a stand-in: %q", rt.Name())
			}
			e, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
			if err != nil {
				t.Fatal(err)
			}
			if streamed := slices.Max(src.reads) < len(src.data); streamed != gen.streams {
				t.Errorf("read in pieces of at most %d of %d bytes; stream reader: %v", slices.Max(src.reads), len(src.data), gen.streams)
			}
			if open != 0 || src.closed != 1 {
				t.Errorf("%d pieces of plaintext are left, the source was closed %d times", open, src.closed)
			}
			io, err := e.NewIO()
			if err != nil {
				t.Fatal(err)
			}
			lines(t, trace)
			before := rt.Counts()
			const runs = 3
			for i := range runs {
				frame(t, io, float32(10*i))
				if os.Getenv("VIGIL_REAL_CUDART") != "" {
					continue
				}
				// One copy in, one to the scratch memory, three to the outputs, two out: seven, at one launch.
				if got := lines(t, trace); !slices.Equal(got, []string{"launch:7", "sync:0"}) {
					t.Errorf("run %d did %v", i, got)
				}
			}
			got := rt.Counts()
			want := trt.Counts{Runs: runs, CopiesIn: runs, CopiesOut: 2 * runs, Syncs: runs, GraphLaunches: runs, Captures: 1}
			if before.Runs != 0 || got != want {
				t.Errorf("counts %+v, want %+v", got, want)
			}
			if err := errors.Join(io.Close(), e.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWithoutAGraph: a model that cannot be captured runs step by step, and says why.
func TestWithoutAGraph(t *testing.T) {
	if os.Getenv("VIGIL_REAL_CUDART") != "" {
		t.Skip("a real CUDA runtime captures it")
	}
	dir := standIn(t, 2)
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("VIGIL_STANDIN_TRACE", trace)
	t.Setenv("VIGIL_STANDIN_NOCAPTURE", "1")
	open := 0
	rt := opened(t, dir, &source{data: engineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 0")}, &open)
	e, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
	if err != nil {
		t.Fatal(err)
	}
	io, err := e.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	lines(t, trace)
	frame(t, io, 5)
	if got, want := lines(t, trace), []string{"h2d:24", "d2d:24", "d2d:24", "d2d:24", "d2h:24", "d2h:48", "sync:0"}; !slices.Equal(got, want) {
		t.Errorf("a run did %v, want %v", got, want)
	}
	if why := io.(interface{ NoGraph() string }).NoGraph(); !strings.Contains(why, "not permitted when stream is capturing") {
		t.Errorf("why there is no graph: %q", why)
	}
	if c := rt.Counts(); c.GraphLaunches != 0 || c.Syncs != 1 || c.CopiesIn != 1 || c.CopiesOut != 2 {
		t.Errorf("counts %+v", c)
	}
	if err := errors.Join(io.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}

// TestScratchIsShared: two engines work in one piece of device memory; when a larger one comes, the older moves with it and
// its graph is made anew.
func TestScratchIsShared(t *testing.T) {
	dir := standIn(t, 3)
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("VIGIL_STANDIN_TRACE", trace)
	open := 0
	src := &source{data: engineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 64")}
	rt := opened(t, dir, src, &open)
	load := func() (infer.Engine, infer.IO) {
		e, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
		if err != nil {
			t.Fatal(err)
		}
		io, err := e.NewIO()
		if err != nil {
			t.Fatal(err)
		}
		return e, io
	}
	small, a := load()
	frame(t, a, 1)
	src.data = engineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 4096")
	large, b := load()
	frame(t, b, 2)
	frame(t, a, 3)
	frame(t, a, 4)
	if c := rt.Counts(); c.Captures != 3 || c.Syncs != 4 {
		t.Errorf("counts %+v: three graphs for four runs were expected, and a wait for each", c)
	}
	if os.Getenv("VIGIL_REAL_CUDART") == "" {
		n := 0
		for _, l := range lines(t, trace) {
			if l == "malloc:64" || l == "malloc:4096" {
				n++
			}
		}
		if n != 2 {
			t.Errorf("scratch memory was allocated %d times", n)
		}
	}
	if err := errors.Join(a.Close(), b.Close(), small.Close(), large.Close()); err != nil {
		t.Error(err)
	}
}

// TestEnginesThatDoNotFit are refused with what does not fit, and leave nothing behind.
func TestEnginesThatDoNotFit(t *testing.T) {
	dir := standIn(t, 2)
	broken := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		data []byte
		fail error
		want string
	}{
		"no engine":       {data: []byte("something else"), want: "no engine of the stand-in"},
		"cut off":         {data: []byte("VIGIL-STAND-IN\ninput data 2 3\n"), want: "the engine is cut off"},
		"does not read":   {data: engineText("input data 2 3"), fail: broken, want: "the disk is gone"},
		"other shape":     {data: engineText("input data 2 4", "output scores 2 3", "output twice 12"), want: `input "data" of the engine has shape [2 4], bundle.json says [2 3]`},
		"missing output":  {data: engineText("input data 2 3", "output scores 2 3"), want: "the engine has 1 outputs, bundle.json says 2"},
		"input as output": {data: engineText("input scores 2 3", "output data 2 3", "output twice 12"), want: `the engine has no input "data"`},
	} {
		t.Run(name, func(t *testing.T) {
			open := 0
			rt := opened(t, dir, &source{data: c.data, fail: c.fail}, &open)
			_, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if open != 0 {
				t.Errorf("%d pieces of plaintext are left", open)
			}
		})
	}
}

// TestNoDriver: the library is there, the driver is not.
func TestNoDriver(t *testing.T) {
	if os.Getenv("VIGIL_REAL_CUDART") != "" {
		t.Skip("there is one")
	}
	dir := standIn(t, 2)
	t.Setenv("VIGIL_STANDIN_NODRIVER", "1")
	if _, err := trt.Open(trt.Options{Library: dir}); !errors.Is(err, trt.ErrNoDriver) || !strings.Contains(err.Error(), "install one of CUDA 12.6") {
		t.Errorf("error %v", err)
	}
	if a := trt.Probe(dir); a.State != chain.No || !strings.Contains(a.Reason, "no NVIDIA driver") {
		t.Errorf("probe: %+v", a)
	}
}

// TestUnknownVersions are refused by name, before anything but the version is asked.
func TestUnknownVersions(t *testing.T) {
	fake := compiled(t, "fake.c")
	dir := t.TempDir()
	link(t, dir, "libnvinfer.so.10", fake)
	for version, want := range map[string]string{
		"8601":   "is unknown version of TensorRT: number 8601; this program drives TensorRT-RTX 1.5 to 1.7, TensorRT 10.3 to 10.16, TensorRT 11.0 to 11.4",
		"100200": "10.2.0", "101700": "10.17.0", "110500": "11.5.0", "10400": "1.4.0", "10800": "1.8.0", "120000": "12.0.0",
		"0": "it does not say which",
	} {
		t.Setenv("VIGIL_FAKE_VERSION", version)
		_, err := trt.Inspect(dir)
		if !errors.Is(err, trt.ErrVersion) || !strings.Contains(err.Error(), want) {
			t.Errorf("version %s: error %v, want %q", version, err, want)
		}
		if a := trt.Probe(dir); a.State != chain.No || a.Reason != err.Error() {
			t.Errorf("version %s: probe %+v", version, a)
		}
	}
}

// TestNoLibrary: nothing is there.
func TestNoLibrary(t *testing.T) {
	if _, err := trt.Inspect(t.TempDir()); !errors.Is(err, trt.ErrNoLibrary) || !strings.Contains(err.Error(), "it should hold libnvinfer.so.10") {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := trt.Inspect("/nowhere"); !errors.Is(err, trt.ErrNoLibrary) {
		t.Errorf("no folder: %v", err)
	}
}
