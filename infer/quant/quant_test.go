package quant_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

func randoms(seed uint64, n int, span float32) []float32 {
	r := rand.New(rand.NewPCG(seed, 3))
	out := make([]float32, n)
	for i := range out {
		out[i] = span * (r.Float32()*2 - 1)
	}
	return out
}

var (
	tinyInput  = in("x", 1, 3, 8, 8)
	tinyOutput = in("y", 1, 5)
)

// tiny has all that the writer treats in its own way: convolutions with batch normalisation, clip, relu and PRelu behind, a
// residual addition, a concatenation, pooling, and a fully connected end in the old form.
func tiny(t testing.TB) []byte {
	t.Helper()
	m := &onnx.Model{Opset: 11, Inits: map[string]*onnx.Tensor{},
		Inputs: []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(1, 3, 8, 8)}}, Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(1, 5)}}}
	add := func(op, out string, attrs func(*onnx.Attrs), inputs ...string) {
		n := &onnx.Node{Name: op + "." + out, Op: op, Inputs: inputs, Outputs: []string{out}}
		if attrs != nil {
			attrs(&n.Attrs)
		}
		m.Nodes = append(m.Nodes, n)
	}
	weights := func(name string, span float32, dims ...int64) string {
		n, _ := onnx.Elements(dims)
		m.Inits[name] = onnx.FloatTensor(randoms(uint64(len(m.Inits)), int(n), span), dims...)
		return name
	}
	same := func(a *onnx.Attrs) { a.SetInts("pads", 1, 1, 1, 1) }
	add("Conv", "c1", same, "x", weights("w1", 1, 8, 3, 3, 3), weights("b1", 0.5, 8))
	for i, name := range []string{"g", "be", "mu", "va"} {
		m.Inits[name] = onnx.FloatTensor([]float32{1, 1, 2, 1, 0.5, 1, 3, 1}, 8)
		if i == 1 || i == 2 {
			weights(name, 0.3, 8)
		}
	}
	add("BatchNormalization", "n1", nil, "c1", "g", "be", "mu", "va")
	m.Inits["lo"], m.Inits["hi"] = onnx.FloatTensor([]float32{0}), onnx.FloatTensor([]float32{6})
	add("Clip", "r1", nil, "n1", "lo", "hi")
	add("Conv", "c2", func(a *onnx.Attrs) { same(a); a.SetInt("group", 8) }, "r1", weights("w2", 1, 8, 1, 3, 3))
	add("Relu", "r2", nil, "c2")
	add("Conv", "c3", nil, "r2", weights("w3", 0.5, 8, 8, 1, 1), weights("b3", 0.5, 8))
	add("Add", "a", nil, "c3", "r1")
	add("Conv", "c4", same, "a", weights("w4", 0.3, 8, 8, 3, 3))
	add("PRelu", "p4", nil, "c4", weights("slope", 0.3, 8, 1, 1))
	add("Concat", "k", func(a *onnx.Attrs) { a.SetInt("axis", 1) }, "p4", "a")
	add("MaxPool", "m", func(a *onnx.Attrs) { a.SetInts("kernel_shape", 2, 2); a.SetInts("strides", 2, 2) }, "k")
	add("Conv", "c5", nil, "m", weights("w5", 0.5, 4, 16, 1, 1))
	m.Inits["flat"] = onnx.IntTensor(onnx.Int64, []int64{1, -1}, 2)
	add("Reshape", "f", nil, "c5", "flat")
	add("MatMul", "mm", nil, "f", weights("w6", 0.3, 64, 5))
	add("Add", "y", nil, "mm", weights("b6", 1, 5))
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func calibrated(t testing.TB, rt *ort.Runtime, o quant.Options) *quant.Calibration {
	t.Helper()
	c, err := quant.Calibrate(t.Context(), rt, tiny(t), []infer.Tensor{tinyInput}, infertest.NewNoise(16, 2), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func written(t testing.TB, c *quant.Calibration, dialect string) *quant.Quantised {
	t.Helper()
	q, err := c.Write(t.Context(), dialect)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// alike runs fp32 and INT8 on other noise and gives their signal to noise ratio in dB.
func alike(t testing.TB, rt *ort.Runtime, int8 []byte) float64 {
	t.Helper()
	var engines [2]infer.Engine
	for i, data := range [][]byte{tiny(t), int8} {
		e, err := rt.Load(t.Context(), data, []infer.Tensor{tinyInput}, []infer.Tensor{tinyOutput})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		engines[i] = e
	}
	a, err := quant.Agree(t.Context(), engines, 1, infertest.NewNoise(40, 2))
	if err != nil {
		t.Fatal(err)
	}
	return a.SQNR
}

func TestBothDialectsStayNearFloat(t *testing.T) {
	rt := infertest.Runtime(t)
	for _, o := range []quant.Options{
		{}, {Method: quant.MinMax}, {Method: quant.Percentile}, {Method: quant.Percentile, Percentile: 0.99999}, {Method: quant.MSE, WeightBits: 7},
		{Method: quant.MSE, NoEqualise: true}, {Method: quant.MSE, NoCorrect: true}, {Float: []string{"Conv.c2"}}, {AutoFloat: quant.AutoFloat{Worst: 2}},
	} {
		c := calibrated(t, rt, o)
		for _, dialect := range []string{infer.DialectCPU, infer.DialectTensorRT} {
			q := written(t, c, dialect)
			// 8 bits have about 50 dB at best; what goes wrong (a scale, a zero point, a channel) costs 10 dB and more.
			if db := alike(t, rt, q.Data); db < 23 {
				t.Errorf("%+v %s: %.1f dB", o, dialect, db)
			}
			if again := written(t, c, dialect); !bytes.Equal(again.Data, q.Data) {
				t.Errorf("%+v %s: written again it differs", o, dialect)
			}
			if dialect == infer.DialectTensorRT {
				m, err := onnx.Read(q.Data)
				if err != nil {
					t.Fatal(err)
				}
				if err := quant.CheckTensorRT(m); err != nil {
					t.Errorf("%+v: %v", o, err)
				}
			}
		}
	}
}

// count counts the operators of a file.
func count(t testing.TB, data []byte) map[string]int {
	t.Helper()
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, n := range m.Nodes {
		out[n.Op]++
	}
	return out
}

func TestClampsAreAbsorbed(t *testing.T) {
	rt := infertest.Runtime(t)
	c := calibrated(t, rt, quant.Options{})
	cpu := count(t, written(t, c, infer.DialectCPU).Data)
	if cpu["Clip"]+cpu["Relu"] > 0 || cpu["BatchNormalization"] > 0 || cpu["Gemm"] != 1 {
		t.Errorf("CPU dialect: %v", cpu)
	}
	// The relu stays one. The clip is read by a convolution and by the addition's quantised side, through quantisers that
	// end where it does: it becomes a relu, which TensorRT fuses.
	if trt := count(t, written(t, c, infer.DialectTensorRT).Data); trt["Relu"] != 2 || trt["Clip"] != 0 {
		t.Errorf("TensorRT dialect: %v", trt)
	}
}

func TestLayersAreLeftInFloat(t *testing.T) {
	rt := infertest.Runtime(t)
	precision := func(o quant.Options) (float []string) {
		for _, l := range written(t, calibrated(t, rt, o), infer.DialectCPU).Layers {
			if l.Precision == "float" {
				float = append(float, l.Name)
				if l.Reason == "" {
					t.Errorf("%s is in float without a reason", l.Name)
				}
			}
		}
		return float
	}
	if got := precision(quant.Options{}); len(got) != 0 {
		t.Errorf("by default %v are in float", got)
	}
	if got := precision(quant.Options{Float: []string{"Conv.c3"}}); !slices.Equal(got, []string{"Conv.c3"}) {
		t.Errorf("asked for Conv.c3: %v", got)
	}
	all := written(t, calibrated(t, rt, quant.Options{}), infer.DialectCPU).Layers
	worst := slices.MinFunc(all, func(a, b quant.Layer) int { return int(math.Copysign(1, a.SQNR-b.SQNR)) })
	if got := precision(quant.Options{AutoFloat: quant.AutoFloat{Worst: 1}}); !slices.Equal(got, []string{worst.Name}) {
		t.Errorf("the worst is %s, in float is %v", worst.Name, got)
	}
	_, err := calibrated(t, rt, quant.Options{AutoFloat: quant.AutoFloat{DB: 199}}).Write(t.Context(), infer.DialectCPU)
	if !errors.Is(err, quant.ErrNothing) {
		t.Errorf("all layers are below 199 dB: %v", err)
	}
}

func TestReducedRangeOfWeights(t *testing.T) {
	rt := infertest.Runtime(t)
	for bits, most := range map[int]int64{7: 64, 8: 127} {
		m, err := onnx.Read(written(t, calibrated(t, rt, quant.Options{WeightBits: bits}), infer.DialectCPU).Data)
		if err != nil {
			t.Fatal(err)
		}
		seen := int64(0)
		for _, w := range m.Inits {
			if w.Type == onnx.Int8 {
				v, err := w.Ints()
				if err != nil {
					t.Fatal(err)
				}
				seen = max(seen, slices.Max(v), -slices.Min(v))
			}
		}
		if seen != most {
			t.Errorf("%d bits: weights up to %d, want %d", bits, seen, most)
		}
	}
}

func TestCalibrationRefuses(t *testing.T) {
	rt := infertest.Runtime(t)
	nan := in("x", 1, 3, 8, 8)
	for name, c := range map[string]struct {
		inputs  []infer.Tensor
		samples quant.Samples
		o       quant.Options
		want    string
	}{
		"unknown layer":   {[]infer.Tensor{tinyInput}, infertest.NewNoise(1, 1), quant.Options{Float: []string{"nope"}}, "Conv.c1"},
		"unknown method":  {[]infer.Tensor{tinyInput}, infertest.NewNoise(1, 1), quant.Options{Method: "guess"}, "minmax"},
		"weight bits":     {[]infer.Tensor{tinyInput}, infertest.NewNoise(1, 1), quant.Options{WeightBits: 4}, "7 or 8"},
		"percentile":      {[]infer.Tensor{tinyInput}, infertest.NewNoise(1, 1), quant.Options{Percentile: 2}, "percentile"},
		"no samples":      {[]infer.Tensor{tinyInput}, infertest.NewNoise(0, 1), quant.Options{}, "no samples"},
		"wrong shape":     {[]infer.Tensor{in("x", 1, 3, 9, 8)}, infertest.NewNoise(1, 1), quant.Options{}, "does not fit"},
		"wrong input":     {[]infer.Tensor{in("q", 1, 3, 8, 8)}, infertest.NewNoise(1, 1), quant.Options{}, "no input"},
		"two inputs":      {[]infer.Tensor{tinyInput, tinyInput}, infertest.NewNoise(1, 1), quant.Options{}, "2 inputs"},
		"not numbers":     {[]infer.Tensor{nan}, infertest.NewNoise(1, float32(math.NaN())), quant.Options{}, "not numbers"},
		"infinite inputs": {[]infer.Tensor{nan}, infertest.NewNoise(1, float32(math.Inf(1))), quant.Options{}, "not numbers"},
	} {
		if _, err := quant.Calibrate(t.Context(), rt, tiny(t), c.inputs, c.samples, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a word about %q", name, err, c.want)
		}
	}
	if _, err := calibrated(t, rt, quant.Options{}).Write(t.Context(), "qdq-u4"); err == nil || !strings.Contains(err.Error(), infer.DialectCPU) {
		t.Errorf("unknown dialect: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := quant.Calibrate(ctx, rt, tiny(t), []infer.Tensor{tinyInput}, infertest.NewNoise(4, 1), quant.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
