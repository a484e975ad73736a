package quant_test

import (
	"fmt"
	"slices"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// first is a convolution over a picture.
type first struct {
	channels, height, width, kernel, stride int64
	pads                                    []int64
	blocks                                  bool // it is rewritten
}

func (f first) file(t *testing.T) (data []byte, in, out infer.Tensor) {
	t.Helper()
	size := func(d int64, i int) int64 { return (d+f.pads[i]+f.pads[i+2]-f.kernel)/f.stride + 1 }
	in = infer.Tensor{Name: "x", Type: "float32", Shape: []int64{1, f.channels, f.height, f.width}}
	out = infer.Tensor{Name: "y", Type: "float32", Shape: []int64{1, 8, size(f.height, 0), size(f.width, 1)}}
	m := &onnx.Model{Opset: 13, Inits: map[string]*onnx.Tensor{},
		Inputs: []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(in.Shape...)}}, Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(out.Shape...)}}}
	dims := []int64{8, f.channels, f.kernel, f.kernel}
	n, _ := onnx.Elements(dims)
	m.Inits["w"], m.Inits["b"] = onnx.FloatTensor(randoms(5, int(n), 0.3), dims...), onnx.FloatTensor(randoms(6, 8, 0.5), 8)
	conv := &onnx.Node{Name: "first", Op: "Conv", Inputs: []string{"x", "w", "b"}, Outputs: []string{"c"}}
	conv.Attrs.SetInts("pads", f.pads...)
	conv.Attrs.SetInts("strides", f.stride, f.stride)
	m.Nodes = []*onnx.Node{conv, {Name: "clamp", Op: "Relu", Inputs: []string{"c"}, Outputs: []string{"y"}}}
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data, in, out
}

func answers(t *testing.T, rt *ort.Runtime, data []byte, in, out infer.Tensor) (all []float32) {
	t.Helper()
	e, err := rt.Load(t.Context(), data, []infer.Tensor{in}, []infer.Tensor{out})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	io, err := e.NewIO()
	if err != nil {
		t.Fatal(err)
	}
	defer io.Close()
	for i := range 4 {
		if err := infertest.NewNoise(4, 2).Fill(t.Context(), 100+i, io.Input(0)); err != nil {
			t.Fatal(err)
		}
		if err := io.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		all = append(all, io.Output(0)...)
	}
	return all
}

// What is rewritten over blocks answers bit for bit as before, whatever the size of kernel and padding; what cannot be
// rewritten is left alone.
func TestStridesAreFoldedBitForBit(t *testing.T) {
	rt := infertest.Runtime(t)
	for _, f := range []first{
		{3, 16, 16, 3, 2, []int64{1, 1, 1, 1}, true},
		{3, 16, 20, 3, 2, []int64{1, 1, 1, 1}, true},
		{3, 16, 16, 3, 2, []int64{0, 0, 1, 1}, true},
		{3, 16, 16, 3, 2, []int64{0, 0, 0, 0}, true},
		{3, 16, 16, 3, 2, []int64{2, 1, 2, 2}, true},
		{1, 24, 16, 7, 2, []int64{3, 3, 3, 3}, true},
		{4, 12, 12, 5, 2, []int64{2, 2, 2, 2}, true},
		{2, 12, 12, 2, 2, []int64{0, 0, 0, 0}, true},
		{3, 12, 12, 4, 2, []int64{1, 1, 1, 1}, true},
		{3, 12, 12, 1, 2, []int64{0, 0, 0, 0}, true},
		{3, 15, 16, 3, 2, []int64{1, 1, 1, 1}, false}, // an odd number of rows
		{3, 16, 16, 3, 1, []int64{1, 1, 1, 1}, false}, // no stride
		{3, 15, 15, 3, 3, []int64{0, 0, 0, 0}, false}, // another stride
		{5, 16, 16, 3, 2, []int64{1, 1, 1, 1}, false}, // channels enough as it is
	} {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			data, in, out := f.file(t)
			var got [2][]float32
			for i, o := range []quant.Options{{NoBlocks: true}, {}} {
				c, err := quant.Calibrate(t.Context(), rt, data, []infer.Tensor{in}, infertest.NewNoise(16, 2), o)
				if err != nil {
					t.Fatal(err)
				}
				q := written(t, c, infer.DialectCPU)
				if blocks := count(t, q.Data)["SpaceToDepth"] == 1; blocks != (f.blocks && i == 1) {
					t.Fatalf("%+v: over blocks: %v", o, blocks)
				}
				if count(t, written(t, c, infer.DialectTensorRT).Data)["SpaceToDepth"] > 0 {
					t.Error("TensorRT's dialect is rewritten, too")
				}
				got[i] = answers(t, rt, q.Data, in, out)
			}
			if !slices.Equal(got[0], got[1]) {
				t.Error("the answers differ")
			}
			if slices.Max(got[1]) <= 0 {
				t.Error("it answers nothing but zeros")
			}
		})
	}
}
