package quant

import (
	"fmt"
	"slices"

	"vigil/infer"
	"vigil/infer/quant/onnx"
)

// NormalizeQuantize appends infer.OpL2NormalizeQuantize to an ONNX file, behind its output of that name, a float32 tensor
// [N, D]: the result is the file of a variant in infer.DialectOps, with tensors of the same names and shapes. A file that
// has the operator there already is refused.
func NormalizeQuantize(model []byte, output string) ([]byte, error) {
	m, err := onnx.Read(model)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.Outputs, func(v onnx.Value) bool { return v.Name == output })
	if i < 0 {
		return nil, fmt.Errorf("the model has no output %q", output)
	}
	if v := m.Outputs[i]; v.Type != onnx.Float || len(v.Dims) != 2 {
		return nil, fmt.Errorf("output %q is %v%v: %s takes float32 rows, a tensor of two axes", output, v.Type, v.Shape(), infer.OpL2NormalizeQuantize)
	}
	from := m.Producers()[output]
	if from == nil {
		return nil, fmt.Errorf("output %q is computed by no node of the model", output)
	}
	if from.Domain == infer.OpsDomain {
		return nil, fmt.Errorf("output %q comes from %v already", output, from)
	}
	plain := m.Fresh(output + ".plain")
	from.Outputs[slices.Index(from.Outputs, output)] = plain
	m.ReplaceUses(output, plain) // others went on from the plain values
	m.Nodes = append(m.Nodes, &onnx.Node{
		Name: output + ".quantise", Op: infer.OpL2NormalizeQuantize, Domain: infer.OpsDomain, Inputs: []string{plain}, Outputs: []string{output},
	})
	if m.Domains == nil {
		m.Domains = map[string]int64{}
	}
	m.Domains[infer.OpsDomain] = infer.OpsVersion
	return m.Write()
}
