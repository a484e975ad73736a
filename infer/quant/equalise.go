package quant

import (
	"math"
	"slices"

	"vigil/infer/quant/onnx"
)

// equal is a scale per channel of a tensor between two layers: the first gives the channel multiplied by it, the second
// takes it out again. In float nothing changes; in 8 bits every channel gets the whole range, as if it had a step of its
// own. (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1,
// with measured ranges of activations instead of those of weights. An upper limit of the activation between the layers
// needs no scale: the quantiser's own end takes its place, see writer.absorb.)
type equal struct {
	maker  *onnx.Node // of the calibrated model, by weights
	factor []float64
	shape  []int64    // of the factors, to be multiplied with the tensor
	least  float64    // smallest factor
	hist   *histogram // of the scaled tensor
}

// fewestChannelRange bounds factors: a channel below this share of the widest is not worth its bits.
const fewestChannelRange = 1.0 / 256

// equalisable finds the tensors that lie between weights alone, with at most a clamp behind the first, and their makers.
func equalisable(m *onnx.Model) map[string]*onnx.Node {
	producer, consumers := m.Producers(), m.Consumers()
	out := map[string]*onnx.Node{}
	for _, n := range m.Nodes {
		t := n.Input(0)
		if n.Op != "Conv" || kindOf(m, n) != kindWeights || m.IsOutput(t) {
			continue
		}
		if slices.ContainsFunc(consumers[t], func(c *onnx.Node) bool { return c.Op != "Conv" || kindOf(m, c) != kindWeights || c.Input(0) != t }) {
			continue
		}
		p := producer[t]
		if p != nil && kindOf(m, p) == kindClamp && len(consumers[p.Input(0)]) == 1 && !m.IsOutput(p.Input(0)) {
			p = producer[p.Input(0)]
		}
		if p != nil && p.Op == "Conv" && kindOf(m, p) == kindWeights {
			out[t] = p
		}
	}
	return out
}

// peaks is the largest magnitude of each channel (axis 1) of what was seen.
type peaks []float64

func (p peaks) see(shape []int64, values []float32) {
	plane := 1
	for _, d := range shape[2:] {
		plane *= int(d)
	}
	for at, ch := 0, 0; at < len(values); at, ch = at+plane, (ch+1)%len(p) {
		top := float32(0)
		for _, v := range values[at:][:plane] {
			top = max(top, v, -v)
		}
		p[ch] = math.Max(p[ch], float64(top))
	}
}

// equalTo gives every channel the range of the widest.
func equalTo(maker *onnx.Node, p peaks, rank int) *equal {
	widest := slices.Max(p)
	e := &equal{maker: maker, factor: make([]float64, len(p)), least: math.Inf(1), hist: &histogram{}, shape: []int64{1, int64(len(p))}}
	for len(e.shape) < rank {
		e.shape = append(e.shape, 1)
	}
	for c, v := range p {
		e.factor[c] = 1
		if widest > 0 {
			e.factor[c] = f32(widest / math.Max(v, widest*fewestChannelRange))
		}
		e.least = math.Min(e.least, e.factor[c])
	}
	return e
}

// scaled is the tensor with its factors in it.
func (e *equal) scaled(shape []int64, values []float32, to []float32) []float32 {
	to = append(to[:0], values...)
	plane := 1
	for _, d := range shape[2:] {
		plane *= int(d)
	}
	for at, ch := 0, 0; at < len(to); at, ch = at+plane, (ch+1)%len(e.factor) {
		f := float32(e.factor[ch])
		for i := range to[at:][:plane] {
			to[at+i] *= f
		}
	}
	return to
}

// takeOut divides the weights of a convolution by the factors of its input's channels.
func (e *equal) takeOut(n *onnx.Node, dims []int64, w []float32) {
	groups := int(n.Attrs.Int("group", 1))
	per := int(dims[1])
	inner := 1
	for _, d := range dims[2:] {
		inner *= int(d)
	}
	for i := range w {
		o, j := i/inner/per, i/inner%per
		w[i] = float32(float64(w[i]) / e.factor[o/(int(dims[0])/groups)*per+j])
	}
}

// equals are the scales that a plan can use: those where the maker and every reader are in 8 bits.
func (c *Calibration) equals(p *plan) map[string]*equal {
	out := map[string]*equal{}
	for name, e := range c.equal {
		in8 := p.chosen[p.m.Nodes[slices.Index(c.model.Nodes, e.maker)]] == kindWeights
		for _, r := range p.consumers[name] {
			in8 = in8 && p.chosen[r] == kindWeights
		}
		if in8 {
			out[name] = e
		}
	}
	return out
}

// multiply adds a node that puts the factors into a tensor, and returns its name.
func (e *equal) multiply(m *onnx.Model, name string) string {
	values := make([]float32, len(e.factor))
	for i, f := range e.factor {
		values[i] = float32(f)
	}
	n := &onnx.Node{Name: name + ".equalise", Op: "Mul", Inputs: []string{name}, Outputs: []string{m.Fresh(name + ".equalised")}}
	setConst(m, n, 1, "factor", onnx.FloatTensor(values, e.shape...))
	m.Nodes = append(m.Nodes, n)
	return n.Outputs[0]
}
