//go:build tensorrt

// The INT8 files for TensorRT, before NVIDIA's own parser and builder. What they take here a TensorRT of today takes:
// speed and true 8-bit convolutions can be judged on a GPU alone.
package trt_test

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/infer/trt"
	"vigil/infer/trt/trttest"
)

// refused is the open model that is quantised dynamically: the negative control.
const refused = "antispoof_minifasv2se_128_int8dyn.onnx"

// refusedNode is how the shim writes a node that the parser refuses.
var refusedNode = regexp.MustCompile(`node "[^"]+" \([^)]+\)`)

// openShapes are the inputs of models that leave sizes open, as the presets use them.
var openShapes = map[string][]int64{
	"yunet_s_dynamic.onnx":                {1, 3, 160, 224},
	"minifasnet_v2_2.7_80x80.onnx":        {1, 3, 80, 80},
	"minifasnet_v1se_4.0_80x80.onnx":      {1, 3, 80, 80},
	"antispoof_minifasv2se_128_fp32.onnx": {1, 3, 128, 128},
}

// buildLimit bounds one build; a model takes about a second.
const buildLimit = 2 * time.Minute

// childEnv makes the test binary a build child.
const childEnv = "VIGIL_TEST_BUILD_CHILD"

// TestMain lets this binary be the child that builds: NVIDIA's builder may take its process with it.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "1" {
		if err := trt.RunChild(os.Stdin, os.NewFile(3, "answers"), func() { os.Exit(1) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// build asks TensorRT-RTX about one model, in a child with limits.
func build(t *testing.T, model []byte, inputs ...infer.Tensor) (trt.Built, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.ExtraFiles = []*os.File{answers}
	cmd.WaitDelay = 5 * time.Second
	to, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err = errors.Join(err, answers.Close()); err != nil {
		t.Fatal(err)
	}
	open := 0
	order := trt.Order{Library: rtx(t), Inputs: inputs, MemoryBytes: 8 << 30, CPUSeconds: 120}
	engine, built, err := trt.Exchange(to, from, order, model, alloc(&open), nil)
	if err == nil {
		err = engine.Close()
	}
	if waited := errors.Join(to.Close(), cmd.Wait()); waited != nil && !errors.Is(err, trt.ErrRefused) {
		t.Fatalf("the child: %v (%v)", waited, err)
	}
	if open != 0 {
		t.Errorf("%d engines are left", open)
	}
	return built, err
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
	rtx(t)
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
			a, err := build(t, data)
			if err != nil {
				t.Fatal(err)
			}
			pairs := ops(m)
			if a.Quantize != pairs["QuantizeLinear"] || a.Dequantize != pairs["DequantizeLinear"] || a.Quantize == 0 {
				t.Errorf("TensorRT read %d quantise and %d dequantise layers, the file has %d and %d", a.Quantize, a.Dequantize,
					pairs["QuantizeLinear"], pairs["DequantizeLinear"])
			}
			t.Logf("%d layers (%d quantise, %d dequantise), engine of %.1f MB, built in %.2f s, peak %d MiB; quantised in %.1f s",
				a.Layers, a.Quantize, a.Dequantize, float64(a.Bytes)/1e6, a.Seconds, a.Peak>>20, took.Seconds())
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
	rtx(t)
	data, err := os.ReadFile(infertest.Data(t, "models", refused))
	if err != nil {
		t.Fatal(err)
	}
	_, refusal := build(t, data)
	nodes := refusedNode.FindAllStringSubmatch(fmt.Sprint(refusal), -1)
	if !errors.Is(refusal, trt.ErrRefused) || len(nodes) == 0 {
		t.Fatalf("taken, or refused without a node: %v", refusal)
	}
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	ours := quant.CheckTensorRT(m)
	if !errors.Is(ours, quant.ErrTensorRT) {
		t.Fatalf("CheckTensorRT: %v", ours)
	}
	for _, n := range nodes {
		if !strings.Contains(ours.Error(), n[0]) {
			t.Errorf("TensorRT refuses %s, CheckTensorRT does not", n[0])
		}
	}
	t.Logf("refused at %d nodes, the first %s", len(nodes), nodes[0][0])
}

// TestBrokenPairsAreRefusedByBoth: files that differ from a good one by one rule.
func TestBrokenPairsAreRefusedByBoth(t *testing.T) {
	rtx(t)
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
		if _, err := build(t, data); !errors.Is(err, trt.ErrRefused) {
			t.Errorf("%s: TensorRT takes it (%v)", name, err)
		} else {
			t.Logf("%s: %.300v", name, err)
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

// TestEveryGenerationIsThere: a library of every generation finds what speaks its version, and of each object that does one
// symbol is to be seen.
func TestEveryGenerationIsThere(t *testing.T) {
	fake := trttest.Compiled(t, "fake.c")
	dir := t.TempDir()
	trttest.Link(t, dir, "libnvinfer.so.10", fake)
	for version, want := range map[string]string{"100300": "10.16", "101601": "10.16", "110400": "11.4", "10500": "RTX 1.7", "10701": "RTX 1.7"} {
		t.Setenv("VIGIL_FAKE_VERSION", version)
		l, err := trt.Inspect(dir)
		if errors.Is(err, trt.ErrUnsupported) {
			t.Skipf("%v: scripts/trt says which headers it cannot fetch", err)
		}
		if err != nil || l.Headers != want {
			t.Errorf("version %s: headers %q, want %q (%v)", version, l.Headers, want, err)
		}
	}
	objects, err := filepath.Glob(filepath.Join("gen", "*.syso"))
	if err != nil || len(objects) != len(trt.Generations) {
		t.Fatalf("objects %v, %v", objects, err)
	}
	for _, o := range objects {
		f, err := elf.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := f.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			if elf.ST_BIND(s.Info) != elf.STB_LOCAL && s.Section != elf.SHN_UNDEF && !strings.HasPrefix(s.Name, "vigil_trt_gen") {
				t.Errorf("%s shows %s: it could meet that of another generation", o, s.Name)
			}
			if s.Section == elf.SHN_UNDEF && strings.HasPrefix(s.Name, "_Z") {
				t.Errorf("%s needs %s: a C++ library that nobody links", o, s.Name)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}
