package quant_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// openModel is one of the public models, with the shapes that it is used with.
type openModel struct {
	file    string
	input   infer.Tensor
	outputs []string
	values  [2]float32 // range of the input's values
}

func in(name string, shape ...int64) infer.Tensor {
	return infer.Tensor{Name: name, Type: "float32", Shape: shape}
}

var yunetOutputs = []string{"cls_8", "cls_16", "cls_32", "obj_8", "obj_16", "obj_32", "bbox_8", "bbox_16", "bbox_32", "kps_8", "kps_16", "kps_32"}

var openModels = []openModel{
	{"yunet_s_320_320.onnx", in("input", 1, 3, 320, 320), yunetOutputs, [2]float32{0, 255}},
	{"yunet_s_dynamic.onnx", in("input", 1, 3, 160, 224), yunetOutputs, [2]float32{0, 255}},
	{"face_detection_yunet_2023mar.onnx", in("input", 1, 3, 640, 640), yunetOutputs, [2]float32{0, 255}},
	{"ultraface_version-RFB-320.onnx", in("input", 1, 3, 240, 320), []string{"scores", "boxes"}, [2]float32{-1, 1}},
	{"mobilefacenet_foamliu.onnx", in("input0", 1, 3, 112, 112), []string{"output0"}, [2]float32{-2, 2}},
	{"minifasnet_v2_2.7_80x80.onnx", in("input", 1, 3, 80, 80), []string{"logits"}, [2]float32{0, 255}},
	{"minifasnet_v1se_4.0_80x80.onnx", in("input", 1, 3, 80, 80), []string{"logits"}, [2]float32{0, 255}},
	{"antispoof_minifasv2se_128_fp32.onnx", in("input", 1, 3, 128, 128), []string{"output"}, [2]float32{0, 1}},
}

func (o openModel) read(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(infertest.Data(t, "models", o.file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// noise is a smooth random picture: blobs, so that it is not all high frequencies.
func (o openModel) noise(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]float32, n)
	level := float32(0.5)
	for i := range out {
		level += 0.2 * (r.Float32() - 0.5)
		level = min(max(level, 0), 1)
		out[i] = o.values[0] + (o.values[1]-o.values[0])*level
	}
	return out
}

// outputsOf runs a model once.
func outputsOf(t testing.TB, rt *ort.Runtime, data []byte, input infer.Tensor, names []string, values []float32) map[string][]float32 {
	t.Helper()
	p, err := rt.Probe(data, []infer.Tensor{input}, names, ort.ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	out := map[string][]float32{}
	err = p.Run(t.Context(), [][]float32{values}, func(i int, v *ort.ProbeValue) error {
		out[names[i]] = slices.Clone(v.Values)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apart is the largest difference relative to the largest magnitude of want.
func apart(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	most, diff := 1e-9, 0.0
	for i := range want {
		most = max(most, math.Abs(float64(want[i])))
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if d != d {
			return math.Inf(1)
		}
		diff = max(diff, d)
	}
	return diff / most
}

func TestPreparedModelsAnswerTheSame(t *testing.T) {
	rt := infertest.Runtime(t)
	for _, o := range openModels {
		t.Run(o.file, func(t *testing.T) {
			data := o.read(t)
			m, err := quant.Prepare(t.Context(), rt, data, []infer.Tensor{o.input})
			if err != nil {
				t.Fatal(err)
			}
			folded, err := m.Write()
			if err != nil {
				t.Fatal(err)
			}
			ops := map[string]int{}
			for _, n := range m.Nodes {
				ops[n.Op]++
			}
			t.Logf("opset %d, %v", m.Opset, ops)
			for _, gone := range []string{"BatchNormalization", "Constant", "Shape", "Identity", "Dropout"} {
				if ops[gone] > 0 {
					t.Errorf("%d %s are left", ops[gone], gone)
				}
			}
			for seed := range uint64(3) {
				x := o.noise(seed, o.input.Elements())
				want := outputsOf(t, rt, data, o.input, o.outputs, x)
				got := outputsOf(t, rt, folded, o.input, o.outputs, x)
				for _, name := range o.outputs {
					if d := apart(got[name], want[name]); d > 1e-4 {
						t.Errorf("seed %d, output %s: folded differs by %.2g", seed, name, d)
					}
				}
			}
			batch(t, rt, o, folded)
		})
	}
}

// batch checks that the model made for 3 pictures answers each as the model for one does.
func batch(t *testing.T, rt *ort.Runtime, o openModel, one []byte) {
	t.Helper()
	m, err := onnx.Read(one)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetBatch(3); err != nil {
		t.Fatal(err)
	}
	three, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	n := o.input.Elements()
	var all []float32
	for seed := range uint64(3) {
		all = append(all, o.noise(seed, n)...)
	}
	input := o.input
	input.Shape = append([]int64{3}, o.input.Shape[1:]...)
	got := outputsOf(t, rt, three, input, o.outputs, all)
	for i := range 3 {
		want := outputsOf(t, rt, one, o.input, o.outputs, all[i*n:][:n])
		for _, name := range o.outputs {
			k := len(want[name])
			if len(got[name]) != 3*k {
				t.Fatalf("output %s has %d values for a batch of 3, %d for one", name, len(got[name]), k)
			}
			if d := apart(got[name][i*k:][:k], want[name]); d > 1e-4 {
				t.Errorf("picture %d of the batch, output %s: differs by %.2g", i, name, d)
			}
		}
	}
}
