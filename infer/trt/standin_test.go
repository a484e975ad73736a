//go:build tensorrt

package trt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/trt"
	"vigil/infer/trt/trttest"
)

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

var (
	picture = infer.Tensor{Name: "data", Type: "float32", Shape: []int64{2, 3}}
	scores  = infer.Tensor{Name: "scores", Type: "float32", Shape: []int64{2, 3}}
	twice   = infer.Tensor{Name: "twice", Type: "float32", Shape: []int64{12}}
)

// opened is a runtime on the stand-in whose engines all come from src.
func opened(t *testing.T, dir string, src *source, open *int) *trt.Runtime {
	t.Helper()
	rt, err := trt.Open(trt.Options{Library: dir, Alloc: alloc(open), Engines: func(context.Context, trt.Library, []byte, []infer.Tensor) (trt.Source, error) { return src, nil }})
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
	for _, gen := range trttest.Generations {
		t.Run(gen.Name, func(t *testing.T) {
			dir := trttest.StandIn(t, gen)
			trace := filepath.Join(t.TempDir(), "trace")
			t.Setenv("VIGIL_STANDIN_TRACE", trace)
			open := 0
			src := &source{data: trttest.EngineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 64")}
			rt := opened(t, dir, src, &open)
			if !strings.Contains(strings.Join(rt.Notes(), "\n"), "stand-in: not NVIDIA's TensorRT") {
				t.Errorf("its log hides that it is a stand-in: %q", rt.Notes())
			}
			e, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
			if err != nil {
				t.Fatal(err)
			}
			if streamed := slices.Max(src.reads) < len(src.data); streamed != gen.Streams {
				t.Errorf("read in pieces of at most %d of %d bytes; stream reader: %v", slices.Max(src.reads), len(src.data), gen.Streams)
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
				if trttest.RealCUDA() {
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

// TestAnOutputThatNobodyNames has memory on the device and never crosses the bus.
func TestAnOutputThatNobodyNames(t *testing.T) {
	dir := trttest.StandIn(t, trttest.Generations[2])
	open := 0
	rt := opened(t, dir, &source{data: trttest.EngineText("input data 2 3", "output scores 2 3", "output more 2 3", "output twice 12", "scratch 0")}, &open)
	e, err := rt.Load(t.Context(), nil, []infer.Tensor{picture}, []infer.Tensor{scores, twice})
	if err != nil {
		t.Fatal(err)
	}
	io, err := e.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	frame(t, io, 7)
	if c := rt.Counts(); c.CopiesIn != 1 || c.CopiesOut != 2 || c.Syncs != 1 {
		t.Errorf("counts %+v", c)
	}
	if err := errors.Join(io.Close(), e.Close()); err != nil {
		t.Error(err)
	}
}

// TestWithoutAGraph: a model that cannot be captured runs step by step, and says why.
func TestWithoutAGraph(t *testing.T) {
	if trttest.RealCUDA() {
		t.Skip("a real CUDA runtime captures it")
	}
	dir := trttest.StandIn(t, trttest.Generations[2])
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("VIGIL_STANDIN_TRACE", trace)
	t.Setenv("VIGIL_STANDIN_NOCAPTURE", "1")
	open := 0
	rt := opened(t, dir, &source{data: trttest.EngineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 0")}, &open)
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
	dir := trttest.StandIn(t, trttest.Generations[3])
	trace := filepath.Join(t.TempDir(), "trace")
	t.Setenv("VIGIL_STANDIN_TRACE", trace)
	open := 0
	src := &source{data: trttest.EngineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 64")}
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
	src.data = trttest.EngineText("input data 2 3", "output scores 2 3", "output twice 12", "scratch 4096")
	large, b := load()
	frame(t, b, 2)
	frame(t, a, 3)
	frame(t, a, 4)
	if c := rt.Counts(); c.Captures != 3 || c.Syncs != 4 {
		t.Errorf("counts %+v: three graphs for four runs were expected, and a wait for each", c)
	}
	if !trttest.RealCUDA() {
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
	dir := trttest.StandIn(t, trttest.Generations[2])
	broken := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		data []byte
		fail error
		want string
	}{
		"no engine":       {data: []byte("something else"), want: "no engine of the stand-in"},
		"cut off":         {data: []byte("VIGIL-STAND-IN\ninput data 2 3\n"), want: "the engine is cut off"},
		"does not read":   {data: trttest.EngineText("input data 2 3"), fail: broken, want: "the disk is gone"},
		"other shape":     {data: trttest.EngineText("input data 2 4", "output scores 2 3", "output twice 12"), want: `input "data" of the engine has shape [2 4], bundle.json says [2 3]`},
		"missing output":  {data: trttest.EngineText("input data 2 3", "output scores 2 3"), want: `the engine has no output "twice"`},
		"second input":    {data: trttest.EngineText("input data 2 3", "input more 1", "output scores 2 3", "output twice 12"), want: "the engine has 2 inputs, bundle.json says 1"},
		"open output":     {data: trttest.EngineText("input data 2 3", "output scores 2 3", "output twice 12", "output more -1"), want: `output "more" of the engine, which bundle.json does not name, has the open shape [-1]`},
		"input as output": {data: trttest.EngineText("input scores 2 3", "output data 2 3", "output twice 12"), want: `the engine has no input "data"`},
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
	if trttest.RealCUDA() {
		t.Skip("there is one")
	}
	dir := trttest.StandIn(t, trttest.Generations[2])
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
	fake := trttest.Compiled(t, "fake.c")
	dir := t.TempDir()
	trttest.Link(t, dir, "libnvinfer.so.10", fake)
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
