package onnx

import "slices"

// Pin gives an input a shape without unknown sizes. It refuses one that does not fit what the model declares.
func (m *Model) Pin(name string, shape []int64) error {
	i := slices.IndexFunc(m.Inputs, func(v Value) bool { return v.Name == name })
	if i < 0 {
		return refuse("the model has no input %q; it has %v", name, m.inputNames())
	}
	v := &m.Inputs[i]
	fits := v.Dims == nil || slices.EqualFunc(v.Dims, shape, func(d Dim, s int64) bool { return d.Size < 0 || d.Size == s })
	if n, ok := Elements(shape); !fits || !ok || n == 0 {
		return refuse("input %q has shape %v, which %v does not fit", name, v.Shape(), shape)
	}
	v.Dims = Dims(shape...)
	return nil
}

func (m *Model) inputNames() []string {
	out := make([]string, len(m.Inputs))
	for i, v := range m.Inputs {
		out[i] = v.Name
	}
	return out
}

// SetBatch makes a model for one picture take n at once: the first axis of every input and output, and of every constant
// that a Reshape of computed values takes as its shape. A constant shape whose first size is 1 is taken to mean the batch.
// A model that mixes its batch into other axes cannot be told apart here: whoever calls compares the answers.
func (m *Model) SetBatch(n int64) error {
	if err := m.InlineConstants(); err != nil {
		return err
	}
	for _, list := range [][]Value{m.Inputs, m.Outputs} {
		for i := range list {
			v := &list[i]
			if len(v.Dims) == 0 {
				return refuse("tensor %q has no batch axis", v.Name)
			}
			if d := v.Dims[0].Size; d > 1 && d != n {
				return refuse("tensor %q has a batch of %d already: start from the model for one", v.Name, d)
			}
			v.Dims[0] = Dim{Size: n}
		}
	}
	computed := m.Producers()
	for _, v := range m.Inputs {
		computed[v.Name] = &Node{}
	}
	for _, node := range m.Nodes {
		if node.Op != "Reshape" || computed[node.Input(0)] == nil {
			continue
		}
		t := m.Inits[node.Input(1)]
		if t == nil {
			continue // computed from a shape: it follows by itself
		}
		shape, err := t.Ints()
		if err != nil || len(shape) == 0 {
			return refuse("%v: its shape cannot be read", node)
		}
		if shape[0] != 1 {
			continue // 0 copies the axis, -1 computes it
		}
		shape[0] = n
		m.constInput(node, 1, "shape", ints64(shape))
	}
	m.known = nil
	return nil
}

// InlineConstants makes initialisers of the nodes that hold their value as an attribute.
func (m *Model) InlineConstants() error {
	var err error
	m.Nodes = slices.DeleteFunc(m.Nodes, func(n *Node) bool {
		if n.Op != "Constant" || err != nil {
			return false
		}
		a := n.Attrs
		var t *Tensor
		switch {
		case a.Has("value"):
			t = a.Tensor("value")
		case a.Has("value_float"):
			t = FloatTensor([]float32{a.Float("value_float", 0)})
		case a.Has("value_floats"):
			t = FloatTensor(a.Floats("value_floats"), int64(len(a.Floats("value_floats"))))
		case a.Has("value_int"):
			t = IntTensor(Int64, []int64{a.Int("value_int", 0)})
		case a.Has("value_ints"):
			t = IntTensor(Int64, a.Ints("value_ints"), int64(len(a.Ints("value_ints"))))
		}
		if t == nil {
			err = refuse("%v holds a value that cannot be read", n)
			return false
		}
		m.Inits[n.Outputs[0]] = t
		return true
	})
	return err
}
