// The INT8 files for TensorRT, before NVIDIA's own parser and builder. What they take here a TensorRT of today takes:
// speed and true 8-bit convolutions can be judged on a GPU alone.
package trt_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// refused is the open model that is quantised dynamically: the negative control.
const refused = "antispoof_minifasv2se_128_int8dyn.onnx"

// openShapes are the inputs of models that leave sizes open, as the presets use them.
var openShapes = map[string][]int64{
	"yunet_s_dynamic.onnx":                {1, 3, 160, 224},
	"minifasnet_v2_2.7_80x80.onnx":        {1, 3, 80, 80},
	"minifasnet_v1se_4.0_80x80.onnx":      {1, 3, 80, 80},
	"antispoof_minifasv2se_128_fp32.onnx": {1, 3, 128, 128},
}

// childLimit bounds one run of the compiler or of the builder; a model takes about a second.
const childLimit = 2 * time.Minute

// builder is the compiled rtxbuild with the generation of headers for the library at hand.
type builder struct {
	program, generation, libraries string
}

// answer is what rtxbuild prints.
type answer struct {
	Version      int      `json:"version"`
	Generation   string   `json:"generation"`
	Parsed       bool     `json:"parsed"`
	Built        bool     `json:"built"`
	Layers       int      `json:"layers"`
	Quantize     int      `json:"quantize"`
	Dequantize   int      `json:"dequantize"`
	EngineBytes  int64    `json:"engine_bytes"`
	ParseSeconds float64  `json:"parse_seconds"`
	BuildSeconds float64  `json:"build_seconds"`
	PeakBytes    int64    `json:"peak_bytes"`
	Log          []string `json:"log"`
	Errors       []struct {
		Node, Op, Text string
		Code           int
	} `json:"errors"`
}

// run runs a child process with a time limit and returns what it printed; an exit status of 1 is an answer too.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), childLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 && stdout.Len() > 0 {
		return stdout.Bytes()
	}
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", filepath.Base(name), args, err, stderr.Bytes())
	}
	return stdout.Bytes()
}

func decode(t *testing.T, data []byte) (a answer) {
	t.Helper()
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatalf("rtxbuild printed %q: %v", data, err)
	}
	return a
}

// cache is the folder that scripts/rtx fills; the test skips where it did not.
func cache(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(infertest.Root(t), ".cache", "rtx")
	for _, need := range []string{"lib/libtensorrt_rtx.so", "headers/cuda_runtime_api.h"} {
		if _, err := os.Stat(filepath.Join(dir, need)); err != nil {
			t.Skip("no TensorRT-RTX: run `make setup` on x86-64 with pip and cargo; it says what it cannot fetch")
		}
	}
	if _, err := exec.LookPath("g++"); err != nil {
		t.Skip("no g++ to compile rtxbuild with: run `make setup`")
	}
	return dir
}

// compile compiles a source of rtxbuild once for its content and these arguments, and returns the result's path.
func compile(t *testing.T, dir, name, source string, args ...string) string {
	t.Helper()
	h := sha256.New()
	for _, f := range []string{source, "build.h"} {
		data, err := os.ReadFile(filepath.Join("rtxbuild", f))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %d %s", f, len(data), data)
	}
	fmt.Fprint(h, args)
	out := filepath.Join(dir, "bin", fmt.Sprintf("%s-%x", name, h.Sum(nil)[:8]))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	part := fmt.Sprintf("%s.%d", out, os.Getpid()) // whole or not at all, also beside another test's
	args = append([]string{"-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-o", part, filepath.Join("rtxbuild", source)}, args...)
	run(t, "g++", args...)
	if err := os.Rename(part, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func compileGeneration(t *testing.T, dir, generation string) string {
	t.Helper()
	return compile(t, dir, generation+".so", "build.cc", "-fPIC", "-shared", "-fvisibility=hidden", "-fvisibility-inlines-hidden",
		"-isystem", filepath.Join(dir, "headers", generation), "-isystem", filepath.Join(dir, "headers"))
}

// newBuilder asks the library for its version before anything else and compiles what speaks it.
func newBuilder(t *testing.T) *builder {
	t.Helper()
	dir := cache(t)
	b := &builder{libraries: filepath.Join(dir, "lib"), program: compile(t, dir, "rtxbuild", "main.cc", "-ldl")}
	a := decode(t, run(t, b.program, b.libraries))
	if a.Generation == "" {
		t.Fatalf("rtxbuild knows no headers for version %d of the library", a.Version)
	}
	t.Logf("TensorRT-RTX %d by the headers %s", a.Version, a.Generation)
	b.generation = compileGeneration(t, dir, a.Generation)
	return b
}

// build asks about one model.
func (b *builder) build(t *testing.T, model []byte) answer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, model, 0o600); err != nil {
		t.Fatal(err)
	}
	return decode(t, run(t, b.program, b.libraries, b.generation, path))
}

// noise are smooth random inputs within the range that pictures have in the open models.
type noise struct{ n int }

func (s noise) Len() int { return s.n }
func (s noise) Fill(_ context.Context, i int, input []float32) error {
	r := rand.New(rand.NewPCG(uint64(i), 11))
	level := float32(0)
	for k := range input {
		level = min(max(level+0.4*(r.Float32()-0.5), -1), 1)
		input[k] = level
	}
	return nil
}

// shapeOf is the one input of a model with every size known.
func shapeOf(t *testing.T, rt *ort.Runtime, name string, model []byte) infer.Tensor {
	t.Helper()
	inputs, _, err := rt.Inspect(model)
	if err != nil {
		t.Fatal(err)
	}
	if len(inputs) != 1 {
		t.Fatalf("%d inputs: one can be calibrated", len(inputs))
	}
	in := inputs[0]
	if slices.Min(in.Shape) < 0 {
		if in.Shape = openShapes[name]; in.Shape == nil {
			t.Fatalf("leaves sizes open (%v): name a shape for it in openShapes", inputs[0])
		}
	}
	return in
}

// quantised is a model in TensorRT's dialect, calibrated on a little noise: the graph is judged here, not its accuracy.
func quantised(t *testing.T, rt *ort.Runtime, name string, model []byte) []byte {
	t.Helper()
	in := shapeOf(t, rt, name, model)
	c, err := quant.Calibrate(t.Context(), rt, model, []infer.Tensor{in}, noise{1}, quant.Options{Method: quant.MinMax})
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Write(t.Context(), infer.DialectTensorRT)
	if err != nil {
		t.Fatal(err)
	}
	return q.Data
}

// models are all open models and those of the built-in bundles, by path.
func models(t *testing.T) (paths []string) {
	t.Helper()
	open, err := filepath.Glob(filepath.Join(infertest.Data(t, "models"), "*.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if len(open) == 0 {
		t.Fatal("the folder of models has none")
	}
	err = filepath.WalkDir(filepath.Join(infertest.Root(t), "infer", "builtin"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".onnx") && !strings.Contains(filepath.Base(path), ".qdq-") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return append(paths, open...)
}

// TestTensorRTTakesEveryFileOfOurs: NVIDIA's parser reads it, its builder makes an engine of it, no quantisation is lost on
// the way, and our own checker says the same.
func TestTensorRTTakesEveryFileOfOurs(t *testing.T) {
	b := newBuilder(t)
	rt := infertest.Runtime(t)
	taken := 0
	for _, path := range models(t) {
		name := filepath.Base(path)
		if name == refused {
			continue
		}
		t.Run(name, func(t *testing.T) {
			model, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			data := quantised(t, rt, name, model)
			took := time.Since(start)
			m := check(t, data)
			a := b.build(t, data)
			if !a.Parsed || !a.Built || a.EngineBytes == 0 {
				t.Fatalf("refused: %+v", a)
			}
			pairs := ops(m)
			if a.Quantize != pairs["QuantizeLinear"] || a.Dequantize != pairs["DequantizeLinear"] || a.Quantize == 0 {
				t.Errorf("TensorRT read %d quantise and %d dequantise layers, the file has %d and %d", a.Quantize, a.Dequantize,
					pairs["QuantizeLinear"], pairs["DequantizeLinear"])
			}
			t.Logf("%d layers (%d quantise, %d dequantise), engine of %.1f MB, parsed in %.2f s, built in %.2f s, peak %d MiB; quantised in %.1f s",
				a.Layers, a.Quantize, a.Dequantize, float64(a.EngineBytes)/1e6, a.ParseSeconds, a.BuildSeconds, a.PeakBytes>>20, took.Seconds())
			taken++
		})
	}
	if taken == 0 && !t.Failed() {
		t.Error("no model was tried")
	}
}

// check is our own verdict, on the bytes that were written.
func check(t *testing.T, data []byte) *onnx.Model {
	t.Helper()
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := quant.CheckTensorRT(m); err != nil {
		t.Errorf("CheckTensorRT: %v", err)
	}
	return m
}

func ops(m *onnx.Model) map[string]int {
	count := map[string]int{}
	for _, n := range m.Nodes {
		count[n.Op]++
	}
	return count
}

// TestTensorRTRefusesDynamicQuantisation is the control: the parser really judges, and names the nodes that CheckTensorRT
// names.
func TestTensorRTRefusesDynamicQuantisation(t *testing.T) {
	b := newBuilder(t)
	data, err := os.ReadFile(infertest.Data(t, "models", refused))
	if err != nil {
		t.Fatal(err)
	}
	a := b.build(t, data)
	if a.Parsed || a.Built || len(a.Errors) == 0 {
		t.Fatalf("taken: %+v", a)
	}
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	ours := quant.CheckTensorRT(m)
	if !errors.Is(ours, quant.ErrTensorRT) {
		t.Fatalf("CheckTensorRT: %v", ours)
	}
	for _, e := range a.Errors {
		if e.Node == "" || !strings.Contains(ours.Error(), fmt.Sprintf("node %q (%s)", e.Node, e.Op)) {
			t.Errorf("TensorRT refuses node %q (%s), CheckTensorRT does not", e.Node, e.Op)
		}
	}
	t.Logf("refused at %d nodes, the first %q (%s)", len(a.Errors), a.Errors[0].Node, a.Errors[0].Op)
}

// TestBrokenPairsAreRefusedByBoth: files that differ from a good one by one rule.
func TestBrokenPairsAreRefusedByBoth(t *testing.T) {
	b := newBuilder(t)
	rt := infertest.Runtime(t)
	path := infertest.Data(t, "models", "mobilefacenet_foamliu.onnx")
	model, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good, err := onnx.Read(quantised(t, rt, filepath.Base(path), model))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(m *onnx.Model, q *onnx.Node){
		"zero point of 3":    func(m *onnx.Model, q *onnx.Node) { m.Inits[q.Input(2)] = onnx.IntTensor(onnx.Int8, []int64{3}) },
		"scale of -1":        func(m *onnx.Model, q *onnx.Node) { m.Inits[q.Input(1)] = onnx.FloatTensor([]float32{-1}) },
		"integer arithmetic": func(m *onnx.Model, q *onnx.Node) { integerConv(m) },
	} {
		m := good.Clone()
		i := slices.IndexFunc(m.Nodes, func(n *onnx.Node) bool { return n.Op == "QuantizeLinear" })
		spoil(m, m.Nodes[i])
		if err := quant.CheckTensorRT(m); !errors.Is(err, quant.ErrTensorRT) {
			t.Errorf("%s: CheckTensorRT: %v", name, err)
		}
		data, err := m.Write()
		if err != nil {
			t.Fatal(err)
		}
		if a := b.build(t, data); a.Built {
			t.Errorf("%s: TensorRT takes it", name)
		} else {
			t.Logf("%s: parsed %v, %+v %q", name, a.Parsed, a.Errors, a.Log)
		}
	}
}

// integerConv puts an operator on integers behind the first quantiser.
func integerConv(m *onnx.Model) {
	for i, n := range m.Nodes {
		if n.Op != "QuantizeLinear" {
			continue
		}
		dims := []int64{1, 3, 1, 1}
		m.Inits["spoilt.w"] = onnx.IntTensor(onnx.Int8, []int64{1, 2, 3}, dims...)
		bad := &onnx.Node{Name: "spoilt", Op: "ConvInteger", Inputs: []string{n.Outputs[0], "spoilt.w"}, Outputs: []string{"spoilt.y"}}
		m.Nodes = slices.Insert(m.Nodes, i+1, bad)
		m.Outputs = append(m.Outputs, onnx.Value{Name: "spoilt.y", Type: onnx.Int32, Dims: onnx.Dims(1, 1, 112, 112)})
		return
	}
}

// TestEveryGenerationCompiles: a newer or an Enterprise library finds what speaks its version.
func TestEveryGenerationCompiles(t *testing.T) {
	dir := cache(t)
	folders, err := filepath.Glob(filepath.Join(dir, "headers", "TRT-*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) != 6 {
		t.Errorf("%d generations of headers, six are pinned", len(folders))
	}
	for _, f := range folders {
		compileGeneration(t, dir, filepath.Base(f))
	}
}
