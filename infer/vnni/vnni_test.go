package vnni_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/infer/vnni"
	"vigil/kernels/int8"
)

func processor(t testing.TB) {
	t.Helper()
	if err := int8.Have(); err != nil {
		t.Skip("skipped: ", err)
	}
}

// model is a file with its tensors.
type model struct {
	data    []byte
	in, out []infer.Tensor
}

// everything is a network with every operator that is taken, in 8 bits.
func everything(t testing.TB, rt *ort.Runtime) model {
	t.Helper()
	g := &graph{m: &onnx.Model{Opset: 13, Inits: map[string]*onnx.Tensor{}}}
	g.conv("stem", "x", 3, 16, 3, func(a *onnx.Attrs) { a.SetInts("strides", 2, 2); a.SetInts("pads", 1, 1, 1, 1) })
	g.conv("wide", "stem", 16, 64, 1, nil)
	g.conv("deep", "wide", 1, 64, 3, func(a *onnx.Attrs) { a.SetInt("group", 64); a.SetInts("pads", 1, 1, 1, 1) })
	g.conv("back", "deep", 64, 16, 1, nil)
	g.node("Add", "residual", nil, "stem", "back")
	g.node("MaxPool", "pooled", func(a *onnx.Attrs) { a.SetInts("kernel_shape", 2, 2); a.SetInts("strides", 2, 2) }, "residual")
	g.conv("apart", "pooled", 16, 16, 3, func(a *onnx.Attrs) { a.SetInts("dilations", 2, 2); a.SetInts("pads", 2, 2, 2, 2) })
	g.m.Inits["scales"] = onnx.FloatTensor([]float32{1, 1, 2, 2}, 4)
	g.node("Resize", "large", func(a *onnx.Attrs) {
		a.SetText("mode", "nearest")
		a.SetText("coordinate_transformation_mode", "asymmetric")
		a.SetText("nearest_mode", "floor")
	}, "apart", "", "scales")
	g.node("Add", "both", nil, "large", "residual")
	g.conv("scores", "both", 16, 5, 1, nil)
	g.node("Transpose", "turned", func(a *onnx.Attrs) { a.SetInts("perm", 0, 2, 3, 1) }, "scores")
	g.m.Inits["flat"] = onnx.IntTensor(onnx.Int64, []int64{1, -1, 5}, 3)
	g.node("Reshape", "rows", nil, "turned", "flat")
	g.node("Sigmoid", "chances", nil, "rows")
	g.conv("maps", "both", 16, 40, 3, func(a *onnx.Attrs) { a.SetInts("pads", 1, 1, 1, 1) })
	m := model{in: []infer.Tensor{tensor("x", 1, 3, 24, 32)}, out: []infer.Tensor{tensor("chances", 1, 12*16, 5), tensor("maps", 1, 40, 12, 16)}}
	g.m.Inputs, g.m.Outputs = values(m.in), values(m.out)
	data, err := g.m.Write()
	if err != nil {
		t.Fatal(err)
	}
	m.data = quantised(t, rt, data, m.in[0], infertest.NewNoise(8, 2))
	return m
}

func tensor(name string, shape ...int64) infer.Tensor {
	return infer.Tensor{Name: name, Type: "float32", Shape: shape}
}

func values(list []infer.Tensor) (out []onnx.Value) {
	for _, t := range list {
		out = append(out, onnx.Value{Name: t.Name, Type: onnx.Float, Dims: onnx.Dims(t.Shape...)})
	}
	return out
}

// graph puts a network together.
type graph struct{ m *onnx.Model }

func (g *graph) node(op, out string, attrs func(*onnx.Attrs), inputs ...string) {
	n := &onnx.Node{Name: out, Op: op, Inputs: inputs, Outputs: []string{out}}
	if attrs != nil {
		attrs(&n.Attrs)
	}
	g.m.Nodes = append(g.m.Nodes, n)
}

// conv adds a convolution with a Relu behind it, which quantisation makes a part of it.
func (g *graph) conv(out, in string, channels, to, kernel int64, attrs func(*onnx.Attrs)) {
	r := rand.New(rand.NewPCG(uint64(len(g.m.Nodes)), 11))
	w, b := make([]float32, to*channels*kernel*kernel), make([]float32, to)
	for i := range w {
		w[i] = float32(r.NormFloat64() / math.Sqrt(float64(channels*kernel*kernel)))
	}
	for i := range b {
		b[i] = r.Float32()
	}
	g.m.Inits[out+".w"], g.m.Inits[out+".b"] = onnx.FloatTensor(w, to, channels, kernel, kernel), onnx.FloatTensor(b, to)
	g.node("Conv", out, attrs, in, out+".w", out+".b")
}

func quantised(t testing.TB, rt *ort.Runtime, data []byte, in infer.Tensor, s infertest.Noise) []byte {
	t.Helper()
	c, err := quant.Calibrate(t.Context(), rt, data, []infer.Tensor{in}, s, quant.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := c.Write(t.Context(), infer.DialectCPU)
	if err != nil {
		t.Fatal(err)
	}
	return q.Data
}

// finger is the fingerprint network in the binary, in 8 bits.
func finger(t testing.TB) model {
	t.Helper()
	b, err := builtin.Finger()
	if err != nil {
		t.Fatal(err)
	}
	s := b.Manifest.Stage("extract")
	w, err := b.Open(s.Variants[0].File)
	if err != nil {
		t.Fatal(err)
	}
	return model{append([]byte{}, w.Bytes()...), s.Inputs, s.Outputs}
}

// ofData is a float network of the data folder, put into 8 bits on noise.
func ofData(t testing.TB, rt *ort.Runtime, file string, span float32) model {
	t.Helper()
	data, err := os.ReadFile(infertest.Data(t, "models", file))
	if err != nil {
		t.Fatal(err)
	}
	var m model
	if m.in, m.out, err = rt.Inspect(data); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]infer.Tensor{m.in, m.out} {
		for i := range list {
			for k, d := range list[i].Shape {
				list[i].Shape[k] = max(d, 1)
			}
		}
	}
	m.data = quantised(t, rt, data, m.in[0], infertest.NewNoise(4, span))
	return m
}

// Every answer is ONNX Runtime's, bit for bit; behind a Sigmoid to its last bit.
func TestAnswersAreThoseOfONNXRuntime(t *testing.T) {
	processor(t)
	rt := infertest.Runtime(t)
	for name, made := range map[string]func(t *testing.T) model{
		"every operator": func(t *testing.T) model { return everything(t, rt) },
		"fingerprints":   func(t *testing.T) model { return finger(t) },
		"detector":       func(t *testing.T) model { return ofData(t, rt, "yunet_s_320_320.onnx", 200) },
		"embedder":       func(t *testing.T) model { return ofData(t, rt, "mobilefacenet_foamliu.onnx", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			m := made(t)
			ours, err := vnni.Load(m.data, m.in, m.out)
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, ours)
			theirs, err := rt.Load(t.Context(), m.data, m.in, m.out)
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, theirs)
			for i := range 3 {
				same(t, m, answers(t, m, ours, infertest.NewNoise(1, 2), i), answers(t, m, theirs, infertest.NewNoise(1, 2), i))
			}
		})
	}
}

func same(t *testing.T, m model, have, want [][]float32) {
	t.Helper()
	for i := range want {
		name, different := m.out[i].Name, 0
		sigmoid := name == "chances" || strings.HasPrefix(name, "cls_") || strings.HasPrefix(name, "obj_")
		for k, w := range want[i] {
			off := math.Abs(float64(have[i][k] - w))
			if off != 0 && (!sigmoid || off > 2e-7) {
				t.Fatalf("%s: value %d is %g, not %g", name, k, have[i][k], w)
			}
			if w != want[i][0] {
				different++
			}
		}
		if different == 0 && len(want[i]) > 1 {
			t.Errorf("%s: all values are the same: this proves nothing", name)
		}
	}
}

func closed(t *testing.T, e infer.Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func open(t *testing.T, e infer.Engine) infer.IO {
	t.Helper()
	io, err := e.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	return io
}

func shut(t *testing.T, io infer.IO) {
	t.Helper()
	if err := io.Close(); err != nil {
		t.Error(err)
	}
}

// answers runs an engine on one noise.
func answers(t *testing.T, m model, e infer.Engine, s infertest.Noise, i int) [][]float32 {
	t.Helper()
	all, err := run(t, m, e, s, i)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func run(t *testing.T, m model, e infer.Engine, s infertest.Noise, i int) (all [][]float32, err error) {
	t.Helper()
	io := open(t, e)
	defer shut(t, io)
	if err := s.Fill(t.Context(), i, io.Input(0)); err != nil {
		t.Fatal(err)
	}
	if err := io.Run(t.Context()); err != nil {
		return nil, err
	}
	for k := range m.out {
		all = append(all, append([]float32{}, io.Output(k)...))
	}
	return all, nil
}

func TestARunEndsWithItsContext(t *testing.T) {
	processor(t)
	m := finger(t)
	e, err := vnni.Load(m.data, m.in, m.out)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, e)
	io := open(t, e)
	defer shut(t, io)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := io.Run(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("a run whose context has ended: %v", err)
	}
	for range 20 { // whenever it ends: before the run, within it or behind it
		ctx, end := context.WithCancel(t.Context())
		go end()
		if err := io.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := io.Run(t.Context()); err != nil {
			t.Fatalf("the run behind one that was stopped: %v", err)
		}
	}
	if n := testing.AllocsPerRun(10, func() {
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a run", n)
	}
}

func TestNothingStaysMapped(t *testing.T) {
	processor(t)
	m := finger(t)
	cycle := func() {
		e, err := vnni.Load(m.data, m.in, m.out)
		if err != nil {
			t.Fatal(err)
		}
		answers(t, m, e, infertest.NewNoise(1, 2), 0)
		closed(t, e)
	}
	mapped := func() (pages int) {
		text, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(text), &pages); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	for range 5 {
		cycle()
	}
	before := mapped()
	for range 40 {
		cycle()
	}
	if more := (mapped() - before) * 4096; more > 40*(1<<20) { // one set of tensors and weights is 9 MB; a heap breathes
		t.Errorf("40 cycles hold %d MB more", more>>20)
	}
}
