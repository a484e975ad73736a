package quant_test

import (
	"errors"
	"strings"
	"testing"

	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// explicit is a small graph that obeys TensorRT's rules: a convolution of 2 channels behind a pair.
func explicit(t *testing.T) *onnx.Model {
	t.Helper()
	dq := func(name, x, scale, zero, out string) *onnx.Node {
		return &onnx.Node{Name: name, Op: "DequantizeLinear", Inputs: []string{x, scale, zero}, Outputs: []string{out}}
	}
	weights := dq("wdq", "w", "ws", "wz", "wr")
	weights.Attrs.SetInt("axis", 0)
	m := &onnx.Model{
		Opset: 13,
		Nodes: []*onnx.Node{
			{Name: "q", Op: "QuantizeLinear", Inputs: []string{"x", "s", "z"}, Outputs: []string{"xq"}},
			dq("dq", "xq", "s", "z", "xr"), weights,
			{Name: "conv", Op: "Conv", Inputs: []string{"xr", "wr", "b"}, Outputs: []string{"y"}},
		},
		Inits: map[string]*onnx.Tensor{
			"s": onnx.FloatTensor([]float32{0.1}), "z": onnx.IntTensor(onnx.Int8, []int64{0}),
			"w": onnx.IntTensor(onnx.Int8, []int64{1, 2, 3, 4, 5, 6}, 2, 3, 1, 1), "ws": onnx.FloatTensor([]float32{0.1, 0.2}, 2),
			"wz": onnx.IntTensor(onnx.Int8, []int64{0, 0}, 2), "b": onnx.FloatTensor([]float32{1, 2}, 2),
		},
		Inputs:  []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(1, 3, 4, 4)}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(1, 2, 4, 4)}},
	}
	if err := m.Sort(); err != nil {
		t.Fatal(err)
	}
	return m
}

func node(m *onnx.Model, name string) *onnx.Node {
	for _, n := range m.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func TestCheckTensorRT(t *testing.T) {
	if err := quant.CheckTensorRT(explicit(t)); err != nil {
		t.Fatalf("a good graph: %v", err)
	}
	for _, c := range []struct {
		name string
		do   func(m *onnx.Model)
		want string
	}{
		{"asymmetric activation", func(m *onnx.Model) { m.Inits["z"] = onnx.IntTensor(onnx.Int8, []int64{3}) }, `"q" (QuantizeLinear) is not 0`},
		{"uint8 activation", func(m *onnx.Model) { m.Inits["z"] = onnx.IntTensor(onnx.Uint8, []int64{0}) }, "not a constant of int8"},
		{"no zero point", func(m *onnx.Model) { node(m, "q").Inputs = []string{"x", "s"} }, "not a constant of int8"},
		{"asymmetric weights", func(m *onnx.Model) { m.Inits["wz"] = onnx.IntTensor(onnx.Int8, []int64{0, 1}, 2) }, `"wdq" (DequantizeLinear) is not 0`},
		{"zero scale", func(m *onnx.Model) { m.Inits["ws"] = onnx.FloatTensor([]float32{0.1, 0}, 2) }, "not positive"},
		{"negative scale", func(m *onnx.Model) { m.Inits["s"] = onnx.FloatTensor([]float32{-1}) }, "not positive"},
		{"computed scale", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "abs", Op: "ReduceMax", Inputs: []string{"x"}, Outputs: []string{"t"}})
			node(m, "q").Inputs[1] = "t"
		}, "not a constant of float32"},
		{"activation per channel", func(m *onnx.Model) {
			m.Inits["s"] = onnx.FloatTensor([]float32{1, 2, 3}, 3)
			m.Inits["z"] = onnx.IntTensor(onnx.Int8, []int64{0, 0, 0}, 3)
		}, "one for the whole tensor"},
		{"wrong axis", func(m *onnx.Model) { node(m, "wdq").Attrs.SetInt("axis", 1) }, "along axis 0"},
		{"axis left to its default", func(m *onnx.Model) { node(m, "wdq").Attrs.Remove("axis") }, "along axis 0"},
		{"weights per tensor", func(m *onnx.Model) {
			m.Inits["ws"], m.Inits["wz"] = onnx.FloatTensor([]float32{1}), onnx.IntTensor(onnx.Int8, []int64{0})
		}, "one per output channel"},
		{"orphan quantise", func(m *onnx.Model) { node(m, "conv").Inputs[0] = "x" }, `"dq" (DequantizeLinear) is alone`},
		{"quantise without dequantise", func(m *onnx.Model) { node(m, "dq").Inputs[0] = "w" }, `"q" (QuantizeLinear) is alone`},
		{"int8 output", func(m *onnx.Model) {
			m.Outputs = append(m.Outputs, onnx.Value{Name: "xq", Type: onnx.Int8})
		}, `"q" (QuantizeLinear) is alone`},
		{"int8 read by another", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "id", Op: "Identity", Inputs: []string{"xq"}, Outputs: []string{"i"}})
		}, `"id" (Identity), not by a DequantizeLinear`},
		{"pair of two scales", func(m *onnx.Model) {
			m.Inits["s2"] = onnx.FloatTensor([]float32{0.2})
			node(m, "dq").Inputs[1] = "s2"
		}, "different scales"},
		{"dequantise of a computed integer", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "cast", Op: "Cast", Inputs: []string{"x"}, Outputs: []string{"c"}})
			node(m, "dq").Inputs[0] = "c"
		}, "from no QuantizeLinear"},
		{"dynamic", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "dyn", Op: "DynamicQuantizeLinear", Inputs: []string{"x"}, Outputs: []string{"d", "e", "f"}})
		}, `"dyn"`},
		{"integer convolution", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "ci", Op: "ConvInteger", Inputs: []string{"xq", "w"}, Outputs: []string{"d"}})
		}, `"ci"`},
		{"integer kernel", func(m *onnx.Model) {
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "ql", Op: "QLinearConv", Inputs: []string{"xq", "s", "z", "w", "ws", "wz", "s", "z"}, Outputs: []string{"d"}})
		}, `"ql"`},
		{"int32 bias", func(m *onnx.Model) {
			m.Inits["b"] = onnx.IntTensor(onnx.Int32, []int64{1, 2}, 2)
		}, "bias of"},
		{"quantised bias", func(m *onnx.Model) {
			m.Inits["bq"] = onnx.IntTensor(onnx.Int32, []int64{1, 2}, 2)
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "bdq", Op: "DequantizeLinear", Inputs: []string{"bq", "ws", "wz"}, Outputs: []string{"br"}})
			node(m, "conv").Inputs[2] = "br"
		}, "biases stay in float"},
		{"float weights", func(m *onnx.Model) {
			m.Inits["wf"] = onnx.FloatTensor(make([]float32, 6), 2, 3, 1, 1)
			node(m, "conv").Inputs[1] = "wf"
		}, "only one of data and weights"},
		{"float data", func(m *onnx.Model) { node(m, "conv").Inputs[0] = "x" }, "only one of data and weights"},
		{"constant quantised at run", func(m *onnx.Model) {
			m.Inits["k"] = onnx.FloatTensor([]float32{1})
			node(m, "q").Inputs[0] = "k"
		}, "store it as int8"},
		{"bare int8 weights", func(m *onnx.Model) { node(m, "conv").Inputs[1] = "w" }, "without a DequantizeLinear"},
		{"old opset", func(m *onnx.Model) { m.Opset = 11 }, "opset 11"},
		{"nothing quantised", func(m *onnx.Model) {
			m.Nodes = []*onnx.Node{{Name: "r", Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"y"}}}
		}, "no quantisation"},
	} {
		m := explicit(t)
		c.do(m)
		if err := quant.CheckTensorRT(m); !errors.Is(err, quant.ErrTensorRT) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant a finding about %q", c.name, err, c.want)
		}
	}
}
