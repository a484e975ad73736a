package quant

import (
	"context"
	"fmt"
	"slices"

	"vigil/infer"
	"vigil/infer/ort"
	"vigil/infer/quant/onnx"
)

// Prepare reads a model and brings it into the form that quantisation needs: the shapes of inputs pinned, an opset with
// quantisation per channel, constants folded, batch normalisation folded into the weights before it, nothing dead. The
// result gives the same outputs under the same names.
func Prepare(ctx context.Context, rt *ort.Runtime, data []byte, inputs []infer.Tensor) (*onnx.Model, error) {
	m, err := onnx.Read(data)
	if err != nil {
		return nil, err
	}
	for _, in := range inputs {
		if err := m.Pin(in.Name, in.Shape); err != nil {
			return nil, err
		}
	}
	if len(inputs) != len(m.Inputs) {
		return nil, fmt.Errorf("the model has %d inputs, %d shapes were given", len(m.Inputs), len(inputs))
	}
	if err := m.Upgrade(); err != nil {
		return nil, err
	}
	if err := foldConstants(ctx, rt, m, inputs); err != nil {
		return nil, err
	}
	ranks, err := shapes(ctx, rt, m, inputs)
	if err != nil {
		return nil, err
	}
	if err := foldWeights(m, ranks); err != nil {
		return nil, err
	}
	m.RemoveDead()
	return m, m.Sort()
}

// foldConstants replaces what does not depend on the inputs' values by initialisers. The runtime computes the values: one
// run on zeros with the tensors as outputs.
func foldConstants(ctx context.Context, rt *ort.Runtime, m *onnx.Model, inputs []infer.Tensor) error {
	dropIdentity(m)
	if err := m.InlineConstants(); err != nil {
		return err
	}
	var fold []*onnx.Node
	fixed := map[string]bool{}
	for name := range m.Inits {
		fixed[name] = true
	}
	for _, n := range m.Nodes {
		variable := slices.ContainsFunc(n.Inputs, func(in string) bool { return in != "" && !fixed[in] })
		if random[n.Op] || variable && n.Op != "Shape" && n.Op != "Size" {
			continue // all input shapes are pinned, so a shape is a constant
		}
		fold = append(fold, n)
		for _, o := range n.Outputs {
			fixed[o] = o != ""
		}
	}
	if len(fold) == 0 {
		return nil
	}
	var names []string
	consumers := m.Consumers()
	for _, n := range fold {
		for _, o := range n.Outputs {
			needed := slices.ContainsFunc(consumers[o], func(c *onnx.Node) bool { return !slices.Contains(fold, c) })
			if o != "" && (needed || m.IsOutput(o)) {
				names = append(names, o)
			}
		}
	}
	values, err := evaluate(ctx, rt, m, inputs, names)
	if err != nil {
		return fmt.Errorf("cannot fold constants: %w", err)
	}
	m.Nodes = slices.DeleteFunc(m.Nodes, func(n *onnx.Node) bool { return slices.Contains(fold, n) })
	for name, t := range values {
		m.Inits[name] = t
	}
	m.RemoveDead()
	return m.Sort()
}

// random operators answer differently every time.
var random = map[string]bool{"RandomNormal": true, "RandomUniform": true, "RandomNormalLike": true, "RandomUniformLike": true, "Multinomial": true, "Bernoulli": true}

// evaluate runs the model on zeros for the values of some tensors. The runtime's binding has no tensors without axes, so
// each is asked for as a flat one and its shape, with a 1 appended that keeps the shape from being empty.
func evaluate(ctx context.Context, rt *ort.Runtime, m *onnx.Model, inputs []infer.Tensor, names []string) (map[string]*onnx.Tensor, error) {
	out := map[string]*onnx.Tensor{}
	if len(names) == 0 {
		return out, nil
	}
	c := m.Clone()
	c.Inits["flat.shape"] = onnx.IntTensor(onnx.Int64, []int64{-1}, 1)
	c.Inits["one.more"] = onnx.IntTensor(onnx.Int64, []int64{1}, 1)
	var ask []string
	for _, name := range names {
		flat, shape, marked := name+".flat", name+".shape", name+".marked"
		join := &onnx.Node{Name: marked, Op: "Concat", Inputs: []string{shape, "one.more"}, Outputs: []string{marked}}
		join.Attrs.SetInt("axis", 0)
		c.Nodes = append(c.Nodes, &onnx.Node{Name: flat, Op: "Reshape", Inputs: []string{name, "flat.shape"}, Outputs: []string{flat}},
			&onnx.Node{Name: shape, Op: "Shape", Inputs: []string{name}, Outputs: []string{shape}}, join)
		ask = append(ask, flat, marked)
	}
	if err := c.Sort(); err != nil {
		return nil, err
	}
	err := probeOnce(ctx, rt, c, inputs, ask, func(i int, v *ort.ProbeValue) error {
		name := names[i/2]
		if i%2 == 0 {
			out[name] = &onnx.Tensor{Type: onnx.Type(v.Type), Data: v.Data}
			if out[name].Type == onnx.Float {
				out[name] = onnx.FloatTensor(v.Values)
			}
			return nil
		}
		dims, err := (&onnx.Tensor{Type: onnx.Int64, Data: v.Data}).Ints()
		if err == nil {
			out[name].Dims = dims[:len(dims)-1]
		}
		return err
	})
	return out, err
}

// shapes gives the shape of every computed tensor, from one run on zeros.
func shapes(ctx context.Context, rt *ort.Runtime, m *onnx.Model, inputs []infer.Tensor) (map[string][]int64, error) {
	var names []string
	out := map[string][]int64{}
	for _, n := range m.Nodes {
		for _, o := range n.Outputs {
			if o != "" {
				names = append(names, o)
			}
		}
	}
	err := probeOnce(ctx, rt, m, inputs, names, func(i int, v *ort.ProbeValue) error {
		out[names[i]] = v.Shape
		return nil
	})
	for _, in := range inputs {
		out[in.Name] = in.Shape
	}
	return out, err
}

func probeOnce(ctx context.Context, rt *ort.Runtime, m *onnx.Model, inputs []infer.Tensor, names []string, see func(int, *ort.ProbeValue) error) error {
	p, err := openProbe(rt, m, inputs, names, ort.ProbeOptions{Unoptimised: true})
	if err != nil {
		return err
	}
	defer p.Close()
	zeros := make([][]float32, len(inputs))
	for i, in := range inputs {
		zeros[i] = make([]float32, in.Elements())
	}
	return p.Run(ctx, zeros, see)
}

// openProbe loads the model with other outputs.
func openProbe(rt *ort.Runtime, m *onnx.Model, inputs []infer.Tensor, names []string, o ort.ProbeOptions) (*ort.Probe, error) {
	c := m.Clone()
	c.Outputs = nil
	for _, name := range names {
		c.Outputs = append(c.Outputs, onnx.Value{Name: name, Type: onnx.Float})
	}
	fixTypes(c)
	data, err := c.Write()
	if err != nil {
		return nil, err
	}
	return rt.Probe(data, inputs, names, o)
}

// fixTypes declares the outputs that are not float: shapes and indices are int64, comparisons bool. A constant that is an
// output has its own type.
func fixTypes(m *onnx.Model) {
	types := map[string]onnx.Type{}
	for name, t := range m.Inits {
		types[name] = t.Type
	}
	for _, n := range m.Nodes {
		t, ok := types[n.Input(0)]
		switch n.Op {
		case "Shape", "Size", "ArgMax", "ArgMin", "NonZero":
			t, ok = onnx.Int64, true
		case "Constant":
			t, ok = constantType(n), true
		case "ConstantOfShape":
			t, ok = onnx.Float, true
			if v := n.Attrs.Tensor("value"); v != nil {
				t = v.Type
			}
		case "Cast":
			t, ok = onnx.Type(n.Attrs.Int("to", int64(onnx.Float))), true
		case "Equal", "Less", "Greater", "Not", "And", "Or", "Xor", "LessOrEqual", "GreaterOrEqual":
			t, ok = onnx.Bool, true
		case "Where":
			t, ok = types[n.Input(1)]
		case "QuantizeLinear":
			t, ok = types[n.Input(2)]
		case "DequantizeLinear":
			t, ok = onnx.Float, true
		}
		for _, o := range n.Outputs {
			if ok && o != "" {
				types[o] = t
			}
		}
	}
	for i := range m.Outputs {
		if t, ok := types[m.Outputs[i].Name]; ok {
			m.Outputs[i].Type = t
		}
	}
}

func constantType(n *onnx.Node) onnx.Type {
	if t := n.Attrs.Tensor("value"); t != nil {
		return t.Type
	}
	if n.Attrs.Has("value_int") || n.Attrs.Has("value_ints") {
		return onnx.Int64
	}
	return onnx.Float
}

// dropIdentity removes nodes that do nothing, unless they make an output out of an input or initialiser.
func dropIdentity(m *onnx.Model) {
	producer := m.Producers()
	m.Nodes = slices.DeleteFunc(m.Nodes, func(n *onnx.Node) bool {
		if n.Op != "Identity" {
			return false
		}
		in, out := n.Inputs[0], n.Outputs[0]
		if !m.IsOutput(out) {
			m.ReplaceUses(out, in)
			return true
		}
		p := producer[in]
		if p == nil || m.IsOutput(in) {
			return false
		}
		p.Outputs[slices.Index(p.Outputs, in)] = out
		producer[out] = p
		m.ReplaceUses(in, out)
		return true
	})
}
