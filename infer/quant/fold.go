package quant

import (
	"fmt"
	"math"

	"vigil/infer/quant/onnx"
)

// foldWeights joins what is linear and constant: batch normalisation into the Conv or Gemm before it, and MatMul by a
// constant of rank-2 data, with the addition behind it, into Gemm. It repeats until nothing changes, because one fold makes room for the next.
func foldWeights(m *onnx.Model, shapes map[string][]int64) error {
	for changed := true; changed; {
		changed = false
		consumers := m.Consumers()
		producer := m.Producers()
		for _, n := range m.Nodes {
			var err error
			done := false
			switch n.Op {
			case "MatMul":
				done = matMulToGemm(m, n, shapes)
			case "BatchNormalization":
				if p := soleProducer(m, n, producer, consumers); p != nil {
					done, err = foldBatchNorm(m, p, n)
				}
			case "Add":
				if p := soleProducer(m, n, producer, consumers); p != nil {
					done, err = foldBias(m, p, n)
				}
			}
			if err != nil {
				return fmt.Errorf("%v: %w", n, err)
			}
			if done {
				changed = true
				break // the maps are stale
			}
		}
		m.RemoveDead()
	}
	return nil
}

// soleProducer is the node that makes input 0 of n, if n alone reads it and it is a Conv or Gemm with constant weights.
func soleProducer(m *onnx.Model, n *onnx.Node, producer map[string]*onnx.Node, consumers map[string][]*onnx.Node) *onnx.Node {
	p := producer[n.Input(0)]
	if p == nil || !weighted(m, p) || len(consumers[n.Input(0)]) != 1 || m.IsOutput(n.Input(0)) {
		return nil
	}
	return p
}

// weighted reports whether a node is a convolution or matrix product with constant float weights and bias.
func weighted(m *onnx.Model, n *onnx.Node) bool {
	w := m.Const(n.Input(1))
	if w == nil || w.Type != onnx.Float || m.Const(n.Input(0)) != nil {
		return false
	}
	if b := n.Input(2); b != "" && (m.Const(b) == nil || m.Const(b).Type != onnx.Float) {
		return false
	}
	switch n.Op {
	case "Conv":
		return len(w.Dims) >= 3
	case "Gemm":
		return len(w.Dims) == 2 && n.Attrs.Int("transA", 0) == 0 && n.Attrs.Float("alpha", 1) == 1 && n.Attrs.Float("beta", 1) == 1 &&
			(n.Input(2) == "" || len(m.Const(n.Input(2)).Dims) == 1 && m.Const(n.Input(2)).Dims[0] == w.Dims[channelAxis(n)])
	case "MatMul":
		return len(w.Dims) == 2
	}
	return false
}

// channelAxis is the axis of the weights that counts output channels.
func channelAxis(n *onnx.Node) int {
	if n.Op == "MatMul" || n.Op == "Gemm" && n.Attrs.Int("transB", 0) == 0 {
		return 1
	}
	return 0
}

// eachChannel calls f with the channel of every weight.
func eachChannel(dims []int64, axis int, f func(i, channel int)) {
	inner, channels := 1, int(dims[axis])
	for _, d := range dims[axis+1:] {
		inner *= int(d)
	}
	total := inner * channels
	for _, d := range dims[:axis] {
		total *= int(d)
	}
	for i := range total {
		f(i, i/inner%channels)
	}
}

// bias is the bias of a weighted node, zeros if it has none.
func bias(m *onnx.Model, n *onnx.Node) ([]float32, error) {
	if b := m.Const(n.Input(2)); b != nil {
		return b.Floats()
	}
	return make([]float32, m.Const(n.Input(1)).Dims[channelAxis(n)]), nil
}

// setConst gives a node another constant input; the old one may serve others.
func setConst(m *onnx.Model, n *onnx.Node, i int, what string, t *onnx.Tensor) {
	name := m.Fresh(n.Name + "_" + what)
	m.Inits[name] = t
	for len(n.Inputs) <= i {
		n.Inputs = append(n.Inputs, "")
	}
	n.Inputs[i] = name
}

// scaleWeights multiplies the weights of each output channel and replaces the bias.
func scaleWeights(m *onnx.Model, n *onnx.Node, factor []float64, newBias []float32) error {
	w := m.Const(n.Input(1))
	values, err := w.Floats()
	if err != nil {
		return err
	}
	eachChannel(w.Dims, channelAxis(n), func(i, c int) { values[i] = float32(float64(values[i]) * factor[c]) })
	setConst(m, n, 1, "weight", onnx.FloatTensor(values, w.Dims...))
	setConst(m, n, 2, "bias", onnx.FloatTensor(newBias, int64(len(newBias))))
	return nil
}

// foldBatchNorm makes y = gamma*(x-mean)/sqrt(var+eps) + beta part of the weights of p.
func foldBatchNorm(m *onnx.Model, p, bn *onnx.Node) (bool, error) {
	if p.Op == "MatMul" {
		return false, nil // it has no bias; one of rank 2 is a Gemm by now
	}
	var c [4][]float32 // gamma, beta, mean, variance
	for i := range c {
		t := m.Const(bn.Input(i + 1))
		if t == nil {
			return false, nil
		}
		var err error
		if c[i], err = t.Floats(); err != nil {
			return false, err
		}
	}
	b, err := bias(m, p)
	if err != nil {
		return false, err
	}
	eps := float64(bn.Attrs.Float("epsilon", 1e-5))
	factor := make([]float64, len(b))
	for i := range c {
		if len(c[i]) != len(b) {
			return false, fmt.Errorf("it has %d channels, %v has %d", len(c[i]), p, len(b))
		}
	}
	for i := range b {
		factor[i] = float64(c[0][i]) / math.Sqrt(float64(c[3][i])+eps)
		b[i] = float32((float64(b[i])-float64(c[2][i]))*factor[i] + float64(c[1][i]))
	}
	takeOver(p, bn)
	return true, scaleWeights(m, p, factor, b)
}

// foldBias makes the addition of a constant per channel part of the bias of p.
func foldBias(m *onnx.Model, p, add *onnx.Node) (bool, error) {
	t := m.Const(add.Input(1))
	if t == nil || t.Type != onnx.Float || p.Op == "MatMul" {
		return false, nil
	}
	b, err := bias(m, p)
	if err != nil {
		return false, err
	}
	axis := 1 // of the output, counted from its front
	rank := len(m.Const(p.Input(1)).Dims)
	perChannel := t.Len() == len(b) && len(t.Dims) == rank && t.Dims[axis] == int64(len(b))
	perChannel = perChannel || rank == 2 && len(t.Dims) == 1 && t.Len() == len(b)
	if !perChannel {
		return false, nil
	}
	v, err := t.Floats()
	if err != nil {
		return false, err
	}
	for i := range b {
		b[i] += v[i]
	}
	takeOver(p, add)
	setConst(m, p, 2, "bias", onnx.FloatTensor(b, int64(len(b))))
	return true, nil
}

// takeOver makes p give the output of n, which becomes dead.
func takeOver(p, n *onnx.Node) {
	out := n.Outputs[0]
	n.Outputs = []string{n.Outputs[0] + ".folded." + n.Name}
	p.Outputs[0] = out
}

func matMulToGemm(m *onnx.Model, n *onnx.Node, shapes map[string][]int64) bool {
	if !weighted(m, n) || len(shapes[n.Input(0)]) != 2 {
		return false
	}
	n.Op = "Gemm"
	return true
}
