package quant

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"vigil/infer"
	"vigil/infer/quant/onnx"
)

// Quantised is a model in one dialect.
type Quantised struct {
	Dialect string
	Data    []byte // the ONNX file
	Layers  []Layer
}

// Layer is one row of the report about a quantised model.
type Layer struct {
	Name      string  `json:"name"`
	Op        string  `json:"op"`        // with the activation that its quantiser absorbed, such as Conv+Clip
	Precision string  `json:"precision"` // "int8" or "float"
	Reason    string  `json:"reason,omitempty"`
	SQNR      float64 `json:"sqnr_db"` // of this layer alone, its inputs in float
	Low       float64 `json:"input_low"`
	High      float64 `json:"input_high"` // range that its input is quantised to
	Bits      int     `json:"weight_bits"`
}

// Write gives the model in a dialect. It runs the samples once more, to measure each layer.
func (c *Calibration) Write(ctx context.Context, dialect string) (*Quantised, error) {
	if dialect != infer.DialectCPU && dialect != infer.DialectTensorRT {
		return nil, fmt.Errorf("unknown dialect %q: there are %s and %s", dialect, infer.DialectCPU, infer.DialectTensorRT)
	}
	choose := planCPU
	if signed(dialect) {
		choose = planTensorRT
	}
	float := map[string]bool{}
	reasons := map[string]string{}
	for _, name := range c.opts.Float {
		float[name], reasons[name] = true, "asked for"
	}
	full := choose(c.model, float)
	grids, err := c.grids(full, dialect)
	if err != nil {
		return nil, err
	}
	layers, err := c.layers(ctx, full, grids, signed(dialect))
	if err != nil {
		return nil, err
	}
	for _, l := range c.opts.AutoFloat.pick(layers) {
		float[l.node.Name], reasons[l.node.Name] = true, fmt.Sprintf("automatic: %.1f dB", l.sqnr())
	}
	p, alone := full, layers
	if len(float) > len(c.opts.Float) { // some went: choose what is left, and measure it again, for its neighbours changed
		p = choose(c.model, float)
		if grids, err = c.grids(p, dialect); err != nil {
			return nil, err
		}
		if layers, err = c.layers(ctx, p, grids, signed(dialect)); err != nil {
			return nil, err
		}
	}
	w := &writer{c: c, p: p, m: p.m.Clone(), grids: grids, layers: layers, alone: alone, signed: signed(dialect), equals: c.equals(p), makers: map[*onnx.Node]*equal{}}
	for _, e := range w.equals {
		w.makers[e.maker] = e
	}
	if err := w.write(); err != nil {
		return nil, err
	}
	q := &Quantised{Dialect: dialect, Layers: w.report(full, reasons)}
	if q.Data, err = w.m.Write(); err != nil {
		return nil, err
	}
	if w.signed {
		if err := CheckTensorRT(w.m); err != nil {
			return nil, fmt.Errorf("what was written breaks TensorRT's rules: %w", err)
		}
	}
	return q, nil
}

// pick names the layers that are left in float.
func (a AutoFloat) pick(layers map[*onnx.Node]*layer) (out []*layer) {
	var all []*layer
	for _, l := range layers {
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y *layer) int {
		return cmp.Or(cmp.Compare(x.sqnr(), y.sqnr()), cmp.Compare(x.node.Name, y.node.Name))
	})
	for i, l := range all {
		if i < a.Worst || l.sqnr() < a.DB {
			out = append(out, l)
		}
	}
	return out
}

// writer puts quantisation into a copy of the model.
type writer struct {
	c      *Calibration
	p      *plan
	m      *onnx.Model // the copy; node i of it is node i of the plan's
	grids  map[string]grid
	layers map[*onnx.Node]*layer
	alone  map[*onnx.Node]*layer // measured with as much as possible in 8 bits: for the report
	equals map[string]*equal     // by tensor
	makers map[*onnx.Node]*equal // the same, by the node that makes it
	signed bool
}

func (w *writer) write() error {
	copyOf := map[*onnx.Node]*onnx.Node{}
	for i, n := range w.p.m.Nodes {
		copyOf[n] = w.m.Nodes[i]
	}
	for _, n := range w.p.m.Nodes {
		if w.p.chosen[n] == kindWeights {
			if err := w.weights(n, copyOf[n]); err != nil {
				return fmt.Errorf("%v: %w", n, err)
			}
		}
	}
	if w.signed {
		w.simplifyClips()
		w.pairsPerReader(copyOf)
		w.m.RemoveDead()
		return w.m.Sort()
	}
	w.constants(copyOf)
	w.absorb(copyOf)
	for _, name := range w.p.tensors {
		w.pairBehind(name)
	}
	if !w.c.opts.NoBlocks {
		w.foldStride(copyOf)
	}
	w.m.RemoveDead()
	return w.m.Sort()
}

// weights gives a node its quantised weights behind a DequantizeLinear, and its bias: float for TensorRT, which wants it
// so, int32 for ONNX Runtime, which adds it to the sums as it is.
func (w *writer) weights(n, to *onnx.Node) error {
	l := w.layers[n]
	if l == nil {
		return fmt.Errorf("it was not measured")
	}
	q := *l.w
	if e := w.makers[n]; e != nil {
		q.put(e)
	}
	to.Inputs[1] = w.dequantised(n.Name+".weight", onnx.Int8, q.values, q.dims, q.scale, int64(q.axis))
	if n.Op == "MatMul" {
		return nil
	}
	if w.signed {
		setConst(w.m, to, 2, "bias", onnx.FloatTensor(q.bias, int64(len(q.bias))))
		return nil
	}
	steps, scale := q.biasSteps(w.grids[n.Input(0)].scale)
	if len(to.Inputs) < 3 {
		to.Inputs = append(to.Inputs, "")
	}
	to.Inputs[2] = w.dequantised(n.Name+".bias", onnx.Int32, steps, []int64{int64(len(steps))}, scale, 0)
	return nil
}

// dequantised adds a constant with a scale per channel and returns the tensor of its real values.
func (w *writer) dequantised(base string, typ onnx.Type, values, dims []int64, scale []float32, axis int64) string {
	name := w.m.Fresh(base + ".quantised")
	w.m.Inits[name] = onnx.IntTensor(typ, values, dims...)
	w.m.Inits[name+".scale"] = onnx.FloatTensor(scale, int64(len(scale)))
	w.m.Inits[name+".zero"] = onnx.IntTensor(typ, make([]int64, len(scale)), int64(len(scale)))
	n := &onnx.Node{Name: base + ".dequantise", Op: "DequantizeLinear", Inputs: []string{name, name + ".scale", name + ".zero"}, Outputs: []string{w.m.Fresh(base + ".real")}}
	n.Attrs.SetInt("axis", axis)
	w.m.Nodes = append(w.m.Nodes, n)
	return n.Outputs[0]
}

// quantisePair adds QuantizeLinear and DequantizeLinear of a tensor.
func quantisePair(m *onnx.Model, from, base, to string, g grid, signed bool) {
	q := quantiseNode(m, from, base, g, signed)
	m.Nodes = append(m.Nodes, &onnx.Node{
		Name: base + ".dequantise", Op: "DequantizeLinear", Inputs: []string{q.Outputs[0], q.Inputs[1], q.Inputs[2]}, Outputs: []string{to},
	})
}

func quantiseNode(m *onnx.Model, from, base string, g grid, signed bool) *onnx.Node {
	typ := onnx.Uint8
	if signed {
		typ = onnx.Int8
	}
	scale, zero := base+".scale", base+".zero"
	m.Inits[scale] = onnx.FloatTensor([]float32{float32(g.scale)})
	m.Inits[zero] = onnx.IntTensor(typ, []int64{int64(g.zero)})
	n := &onnx.Node{Name: base + ".quantise", Op: "QuantizeLinear", Inputs: []string{from, scale, zero}, Outputs: []string{base + ".quantised"}}
	m.Nodes = append(m.Nodes, n)
	return n
}

// pairBehind puts a pair behind the maker of a tensor: everybody reads the rounded values. An output of the model keeps
// its name.
func (w *writer) pairBehind(name string) {
	raw, rounded := name, w.m.Fresh(name+".rounded")
	if w.m.IsOutput(name) {
		raw, rounded = w.m.Fresh(name+".raw"), name
		for _, n := range w.m.Nodes {
			if i := slices.Index(n.Outputs, name); i >= 0 {
				n.Outputs[i] = raw
			}
		}
	} else {
		w.m.ReplaceUses(name, rounded)
	}
	quantisePair(w.m, raw, name+".activation", rounded, w.grids[name], false)
}

// pairsPerReader quantises a tensor once and gives every reader that wants it a DequantizeLinear of its own, which
// TensorRT fuses with it. Readers in float keep the float tensor.
func (w *writer) pairsPerReader(copyOf map[*onnx.Node]*onnx.Node) {
	for _, name := range w.p.tensors {
		q := quantiseNode(w.m, name, name+".activation", w.grids[name], true)
		for _, n := range w.p.consumers[name] {
			to := copyOf[n]
			if k, ok := w.p.chosen[n]; !ok || k == kindJoin && n.Input(w.p.skipInput(n)) != name {
				continue
			}
			i := slices.Index(to.Inputs, name)
			if i < 0 || w.p.chosen[n] == kindWeights && i != 0 {
				continue
			}
			if w.p.chosen[n] == kindJoin {
				i = w.p.skipInput(n)
			}
			out := w.m.Fresh(n.Name + ".input")
			w.m.Nodes = append(w.m.Nodes, &onnx.Node{
				Name: fmt.Sprintf("%s.dequantise%d", n.Name, i), Op: "DequantizeLinear", Inputs: []string{q.Outputs[0], q.Inputs[1], q.Inputs[2]}, Outputs: []string{out},
			})
			to.Inputs[i] = out
		}
	}
}

// simplifyClips makes a Clip from 0 a Relu where everybody reads it through a quantiser that does not reach above its
// upper limit: the quantiser saturates there by itself, and TensorRT fuses a Relu with the convolution.
func (w *writer) simplifyClips() {
	for i, n := range w.p.m.Nodes {
		if n.Op != "Clip" || kindOf(w.p.m, n) != kindClamp {
			continue
		}
		out := n.Outputs[0]
		_, hi, _ := clipLimits(w.p.m, n)
		g, ok := w.grids[out]
		if !ok || w.p.m.IsOutput(out) || g.high() > float64(hi)*w.leastFactor(out)*(1+1e-6) {
			continue
		}
		through := func(c *onnx.Node) bool {
			k, ok := w.p.chosen[c]
			return ok && (k != kindJoin || c.Input(w.p.skipInput(c)) == out && slices.Index(c.Inputs, out) == w.p.skipInput(c))
		}
		if !slices.ContainsFunc(w.p.consumers[out], func(c *onnx.Node) bool { return !through(c) }) {
			w.m.Nodes[i].Op, w.m.Nodes[i].Inputs = "Relu", w.m.Nodes[i].Inputs[:1]
		}
	}
}

// constants quantises the constant operand of an 8-bit addition or product.
func (w *writer) constants(copyOf map[*onnx.Node]*onnx.Node) {
	for _, n := range w.p.m.Nodes {
		if w.p.chosen[n] != kindJoin {
			continue
		}
		for _, i := range dataInputs(n) {
			t := w.p.m.Const(n.Input(i))
			if t == nil {
				continue
			}
			values, err := t.Floats()
			if err != nil {
				continue // chosen only if it is float
			}
			h := &histogram{}
			h.limits(values)
			g := asymmetric(h.lo, h.hi)
			base := fmt.Sprintf("%s.constant%d", n.Name, i)
			steps := make([]int64, len(values))
			for j, v := range values {
				steps[j] = int64(math.Round(g.round(float64(v))/g.scale)) + int64(g.zero)
			}
			w.m.Inits[base] = onnx.IntTensor(onnx.Uint8, steps, t.Dims...)
			w.m.Inits[base+".scale"] = onnx.FloatTensor([]float32{float32(g.scale)})
			w.m.Inits[base+".zero"] = onnx.IntTensor(onnx.Uint8, []int64{int64(g.zero)})
			w.m.Nodes = append(w.m.Nodes, &onnx.Node{
				Name: base + ".dequantise", Op: "DequantizeLinear", Inputs: []string{base, base + ".scale", base + ".zero"}, Outputs: []string{base + ".real"},
			})
			copyOf[n].Inputs[i] = base + ".real"
		}
	}
}

// absorb drops the clamps that their quantiser does: it reaches from 0 to at most the upper limit and saturates at both.
func (w *writer) absorb(copyOf map[*onnx.Node]*onnx.Node) {
	drop := map[*onnx.Node]bool{}
	for n, k := range w.p.chosen {
		c := w.p.clampOf(n)
		if k == kindClamp || c == nil {
			continue
		}
		g := w.grids[c.Outputs[0]]
		if _, hi, ok := clipLimits(w.p.m, c); g.low() != 0 || ok && g.high() > float64(hi)*w.leastFactor(c.Outputs[0])*(1+1e-6) {
			continue // it stays, in float, between the node and its quantiser: right, but slow
		}
		copyOf[n].Outputs[0] = c.Outputs[0]
		drop[copyOf[c]] = true
	}
	w.m.Nodes = slices.DeleteFunc(w.m.Nodes, func(n *onnx.Node) bool { return drop[n] })
}

// leastFactor is by how much the upper limit of a clamp moves up at least when its channels are equalised.
func (w *writer) leastFactor(name string) float64 {
	if e := w.equals[name]; e != nil {
		return e.least
	}
	return 1
}

// report describes every layer with weights.
func (w *writer) report(full *plan, reasons map[string]string) (out []Layer) {
	for _, n := range w.p.m.Nodes {
		if kindOf(w.p.m, n) != kindWeights {
			continue
		}
		r := Layer{Name: n.Name, Op: n.Op, Precision: "float", Reason: reasons[n.Name]}
		if l := w.alone[n]; l != nil {
			r.SQNR = l.sqnr()
		}
		if w.p.chosen[n] == kindWeights {
			g := w.grids[n.Input(0)]
			r.Precision, r.Low, r.High, r.Bits = "int8", g.low(), g.high(), 8
			if w.c.most(w.signed) == 64 {
				r.Bits = 7
			}
			if c := full.clampOf(n); c != nil && !w.signed {
				r.Op += "+" + c.Op
			}
		}
		out = append(out, r)
	}
	return out
}
