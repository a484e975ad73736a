package quant

import (
	"slices"

	"vigil/infer"
	"vigil/infer/quant/onnx"
)

// kind is how an operator is treated.
type kind int

const (
	kindFloat   kind = iota // stays as it is
	kindWeights             // Conv, Gemm, MatMul with constant weights
	kindJoin                // computes on 8 bits, with a range of its own for the result
	kindPass                // moves values without changing them: input and output share a range
	kindClamp               // Relu, Clip from 0: what the quantiser behind it does by itself
)

// joins are operators that ONNX Runtime has 8-bit kernels for (QLinearAdd and so on).
var joins = map[string]bool{
	"Add": true, "Mul": true, "Concat": true, "AveragePool": true, "GlobalAveragePool": true, "Sigmoid": true, "LeakyRelu": true,
}

// passes are operators that ONNX Runtime runs on 8 bits when input and output have one scale, and that TensorRT moves
// quantisation across.
var passes = map[string]bool{
	"MaxPool": true, "Reshape": true, "Transpose": true, "Flatten": true, "Squeeze": true, "Unsqueeze": true, "Slice": true, "Resize": true,
	"DepthToSpace": true, "SpaceToDepth": true, "Expand": true, "Tile": true,
}

func kindOf(m *onnx.Model, n *onnx.Node) kind {
	switch {
	case n.Domain != "":
		return kindFloat
	case weighted(m, n):
		return kindWeights
	case joins[n.Op]:
		return kindJoin
	case passes[n.Op] && (n.Op != "Resize" || n.Attrs.Text("mode", "nearest") != "cubic"):
		return kindPass
	case n.Op == "Relu":
		return kindClamp
	case n.Op == "Clip":
		if lo, hi, ok := clipLimits(m, n); ok && lo == 0 && hi > 0 {
			return kindClamp
		}
	}
	return kindFloat
}

// clipLimits are the constant limits of a Clip; false if one is missing or computed.
func clipLimits(m *onnx.Model, n *onnx.Node) (lo, hi float32, ok bool) {
	var limits [2]float32
	for i := range limits {
		t := m.Const(n.Input(i + 1))
		if t == nil || t.Type != onnx.Float || t.Len() != 1 {
			return 0, 0, false
		}
		v, err := t.Floats()
		if err != nil {
			return 0, 0, false
		}
		limits[i] = v[0]
	}
	return limits[0], limits[1], true
}

// dataInputs are the inputs of a node that carry values, as opposed to weights, sizes and axes.
func dataInputs(n *onnx.Node) []int {
	if n.Op == "Add" || n.Op == "Mul" || n.Op == "Concat" {
		out := make([]int, len(n.Inputs))
		for i := range out {
			out[i] = i
		}
		return out
	}
	return []int{0}
}

// plan says which nodes of a model compute on 8 bits and which tensors are quantised for that.
type plan struct {
	m         *onnx.Model
	producer  map[string]*onnx.Node
	consumers map[string][]*onnx.Node
	chosen    map[*onnx.Node]kind // nodes in 8 bits
	tensors   []string            // quantised tensors, in order
	leader    map[string]string   // of tensors that share a range
}

func newPlan(m *onnx.Model) *plan {
	return &plan{m: m, producer: m.Producers(), consumers: m.Consumers(), chosen: map[*onnx.Node]kind{}, leader: map[string]string{}}
}

// planCPU chooses everything that ONNX Runtime fuses on the CPU: weights wherever they are, and what lies between them.
// What no weights follow (the last sigmoids, box decoding) stays in float: there is nothing to win, and errors there are
// errors of the answer.
func planCPU(m *onnx.Model, float map[string]bool) *plan {
	p := newPlan(m)
	inner := p.beforeWeights(float)
	for _, n := range m.Nodes {
		if float[n.Name] {
			continue
		}
		switch k := kindOf(m, n); {
		case k == kindWeights,
			k == kindClamp && p.canAbsorb(n),
			(k == kindJoin || k == kindPass) && inner[n] && p.fedByChosen(n):
			p.chosen[n] = k
		}
	}
	for _, n := range m.Nodes {
		k, ok := p.chosen[n]
		if !ok || k == kindClamp {
			continue
		}
		for _, i := range dataInputs(n) {
			if m.Const(n.Input(i)) == nil {
				p.add(n.Input(i))
			}
		}
		if k == kindPass {
			p.join(n.Input(0), n.Outputs[0])
		}
		p.add(p.behindClamp(n))
	}
	return p
}

// planTensorRT chooses the weights only, and quantises what goes into them and into residual additions, as "Working with
// Quantized Types" in NVIDIA's developer guide recommends: no pairs behind weights, before an activation or around it, so
// that convolution, addition and activation fuse; TensorRT moves the pairs across pooling and copies by itself.
func planTensorRT(m *onnx.Model, float map[string]bool) *plan {
	p := newPlan(m)
	for _, n := range m.Nodes {
		switch k := kindOf(m, n); {
		case k == kindWeights && !float[n.Name]:
			p.chosen[n] = k
			p.add(n.Input(0))
		case n.Op == "Add":
			if i := p.skipInput(n); i >= 0 {
				p.chosen[n] = kindJoin
				p.add(n.Input(i))
			}
		case k == kindPass:
			p.join(n.Input(0), n.Outputs[0])
		}
	}
	return p
}

// skipInput is the input of a residual addition that does not come straight from weights; of two that do, the one that
// was computed first. -1 if neither does: then nothing would fuse.
func (p *plan) skipInput(n *onnx.Node) int {
	fuses := func(i int) bool {
		from := p.producer[n.Input(i)]
		return from != nil && p.chosen[from] == kindWeights && len(p.consumers[n.Input(i)]) == 1 && !p.m.IsOutput(n.Input(i))
	}
	if len(n.Inputs) != 2 || p.m.Const(n.Input(0)) != nil || p.m.Const(n.Input(1)) != nil {
		return -1
	}
	switch a, b := fuses(0), fuses(1); {
	case a && b:
		if slices.Index(p.m.Nodes, p.producer[n.Input(0)]) < slices.Index(p.m.Nodes, p.producer[n.Input(1)]) {
			return 0
		}
		return 1
	case a:
		return 1
	case b:
		return 0
	}
	return -1
}

// beforeWeights marks the nodes whose result weights in 8 bits depend on.
func (p *plan) beforeWeights(float map[string]bool) map[*onnx.Node]bool {
	inner := map[*onnx.Node]bool{}
	for _, n := range slices.Backward(p.m.Nodes) {
		for _, o := range n.Outputs {
			for _, c := range p.consumers[o] {
				inner[n] = inner[n] || inner[c] || kindOf(p.m, c) == kindWeights && !float[c.Name]
			}
		}
	}
	return inner
}

// canAbsorb reports whether the quantiser behind a clamp can do its work: the node before is in 8 bits with a range of its
// own, and nobody else reads what the clamp reads.
func (p *plan) canAbsorb(n *onnx.Node) bool {
	from := p.producer[n.Input(0)]
	if from == nil || len(p.consumers[n.Input(0)]) != 1 || p.m.IsOutput(n.Input(0)) {
		return false
	}
	k := p.chosen[from]
	return k == kindWeights || k == kindJoin
}

func (p *plan) fedByChosen(n *onnx.Node) bool {
	for _, i := range dataInputs(n) {
		in := n.Input(i)
		if t := p.m.Const(in); t != nil && t.Type != onnx.Float {
			return false
		}
		_, ok := p.chosen[p.producer[in]]
		if ok || slices.ContainsFunc(p.m.Inputs, func(v onnx.Value) bool { return v.Name == in }) {
			return true
		}
	}
	return false
}

// behindClamp is the tensor that a node's result is stored as: its output, or that of the clamp it absorbs.
func (p *plan) behindClamp(n *onnx.Node) string {
	if c := p.clampOf(n); c != nil {
		return c.Outputs[0]
	}
	return n.Outputs[0]
}

// clampOf is the chosen clamp behind a node, nil if there is none.
func (p *plan) clampOf(n *onnx.Node) *onnx.Node {
	if c := p.consumers[n.Outputs[0]]; len(c) == 1 && p.chosen[c[0]] == kindClamp {
		return c[0]
	}
	return nil
}

func (p *plan) add(name string) {
	if !slices.Contains(p.tensors, name) {
		p.tensors = append(p.tensors, name)
	}
}

func (p *plan) find(name string) string {
	for p.leader[name] != "" {
		name = p.leader[name]
	}
	return name
}

// join makes two tensors share a range.
func (p *plan) join(a, b string) {
	if a, b = p.find(a), p.find(b); a != b {
		p.leader[b] = a
	}
}

// signed reports whether the dialect's activations are symmetric.
func signed(dialect string) bool { return dialect == infer.DialectTensorRT }

// grids chooses the quantiser of every quantised tensor.
func (c *Calibration) grids(p *plan, dialect string) (map[string]grid, error) {
	equals := c.equals(p)
	merged := map[string]*histogram{}
	for _, name := range p.tensors {
		h, l := c.hist[name], p.find(name)
		if e := equals[name]; e != nil {
			h = e.hist
		}
		if merged[l] != nil {
			h = merged[l].merge(h)
		}
		merged[l] = h
	}
	chosen := map[string]grid{}
	out := map[string]grid{}
	for _, name := range p.tensors {
		l := p.find(name)
		if _, ok := chosen[l]; !ok {
			g, err := c.opts.choose(merged[l], signed(dialect))
			if err != nil {
				return nil, err
			}
			chosen[l] = g
		}
		out[name] = chosen[l]
	}
	return out, nil
}
