package quant_test

import (
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
)

// described is y = relu(x), with z = relu(y) behind it, and a third output that is no tensor of rows.
func described(t *testing.T) []byte {
	t.Helper()
	m := &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{"c": onnx.FloatTensor([]float32{1, 2}, 1, 2)},
		Inputs: []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(4, 8)}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(4, 8)}, {Name: "z", Type: onnx.Float, Dims: onnx.Dims(4, 8)},
			{Name: "s", Type: onnx.Int64, Dims: onnx.Dims(2)}, {Name: "c", Type: onnx.Float, Dims: onnx.Dims(1, 2)}},
		Nodes: []*onnx.Node{{Name: "first", Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"y"}}, {Name: "second", Op: "Relu", Inputs: []string{"y"}, Outputs: []string{"z"}},
			{Name: "shape", Op: "Shape", Inputs: []string{"y"}, Outputs: []string{"s"}}}}
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestNormalizeQuantizeIsAppendedToOneOutput(t *testing.T) {
	data, err := quant.NormalizeQuantize(described(t), "y")
	if err != nil {
		t.Fatal(err)
	}
	m, err := onnx.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	producer := m.Producers()
	op := producer["y"]
	if op == nil || op.Op != infer.OpL2NormalizeQuantize || op.Domain != infer.OpsDomain || m.Domains[infer.OpsDomain] != infer.OpsVersion {
		t.Fatalf("output y comes from %v", op)
	}
	if plain := producer[op.Input(0)]; plain == nil || plain.Name != "first" {
		t.Errorf("the operator reads %v", plain)
	}
	if z := producer["z"]; z.Input(0) != op.Input(0) {
		t.Errorf("what is computed from y reads %q, must read the plain values %q", z.Input(0), op.Input(0))
	}
	if m.Outputs[0].Name != "y" || m.Outputs[0].Type != onnx.Float || !m.Outputs[0].Static() {
		t.Errorf("the output became %+v", m.Outputs[0])
	}
	if _, err := quant.NormalizeQuantize(data, "y"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second time: %v", err)
	}
}

func TestNormalizeQuantizeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		model        []byte
		output, want string
	}{
		"no model":      {[]byte("none"), "y", "refused"},
		"no output":     {described(t), "w", `no output "w"`},
		"integers":      {described(t), "s", "takes float32 rows"},
		"a constant":    {described(t), "c", "by no node"},
		"not an output": {described(t), "x", `no output "x"`},
	} {
		if _, err := quant.NormalizeQuantize(c.model, c.output); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
