package quant

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"vigil/infer/quant/onnx"
)

// ErrTensorRT is wrapped by every finding of CheckTensorRT.
var ErrTensorRT = errors.New("not TensorRT's explicit quantisation")

// CheckTensorRT proves that a graph obeys what TensorRT asks of explicit quantisation ("Working with Quantized Types" in
// NVIDIA's developer guide, and the operator notes of its ONNX parser): pairs of QuantizeLinear and DequantizeLinear with
// equal, constant, positive scales and zero points of zero; weights per output channel; biases in float; nothing that
// quantises dynamically or computes on integers by itself; no half of a pair alone. All findings are joined.
func CheckTensorRT(m *onnx.Model) error {
	c := &checker{m: m, producer: m.Producers(), consumers: m.Consumers()}
	if m.Opset < onnx.QuantOpset {
		c.report("opset %d has no scales per channel: %d or later is needed", m.Opset, onnx.QuantOpset)
	}
	pairs := 0
	for _, n := range m.Nodes {
		switch {
		case integerOp(n):
			c.report("%v computes on integers or quantises dynamically: TensorRT takes only QuantizeLinear and DequantizeLinear", n)
		case n.Op == "QuantizeLinear":
			c.quantise(n)
		case n.Op == "DequantizeLinear":
			c.dequantise(n)
			pairs++
		case n.Op == "Conv" || n.Op == "Gemm" || n.Op == "MatMul" || n.Op == "ConvTranspose":
			c.weights(n)
		}
	}
	if pairs == 0 {
		c.report("there is no quantisation in it")
	}
	c.strays()
	return errors.Join(c.found...)
}

// integerOp reports whether a node is of the kinds that are not explicit quantisation.
func integerOp(n *onnx.Node) bool {
	return n.Op == "DynamicQuantizeLinear" || strings.HasPrefix(n.Op, "QLinear") || strings.HasPrefix(n.Op, "QGemm") ||
		strings.HasPrefix(n.Op, "DynamicQuantize") || n.Op == "ConvInteger" || n.Op == "MatMulInteger" || strings.HasPrefix(n.Op, "QAttention")
}

type checker struct {
	m         *onnx.Model
	producer  map[string]*onnx.Node
	consumers map[string][]*onnx.Node
	found     []error
}

func (c *checker) report(format string, args ...any) {
	c.found = append(c.found, fmt.Errorf("%w: %w", ErrTensorRT, fmt.Errorf(format, args...)))
}

// parameters checks scale and zero point of a node and returns the scales, nil if they cannot be used.
func (c *checker) parameters(n *onnx.Node) []float32 {
	scale, zero := c.m.Const(n.Input(1)), c.m.Const(n.Input(2))
	if scale == nil || scale.Type != onnx.Float {
		c.report("the scale of %v is not a constant of float32", n)
		return nil
	}
	values, err := scale.Floats()
	if err != nil {
		c.report("the scale of %v: %w", n, err)
		return nil
	}
	if slices.ContainsFunc(values, func(v float32) bool { return !(v > 0) || math.IsInf(float64(v), 0) }) {
		c.report("a scale of %v is not positive and finite", n)
	}
	if zero == nil || zero.Type != onnx.Int8 {
		c.report("the zero point of %v is not a constant of int8: without one the type is uint8", n)
		return values
	}
	points, err := zero.Ints()
	if err != nil || slices.ContainsFunc(points, func(p int64) bool { return p != 0 }) {
		c.report("the zero point of %v is not 0: quantisation must be symmetric", n)
	}
	if zero.Len() != scale.Len() {
		c.report("%v has %d scales and %d zero points", n, scale.Len(), zero.Len())
	}
	return values
}

func (c *checker) quantise(n *onnx.Node) {
	if s := c.parameters(n); len(s) > 1 {
		c.report("%v has a scale per channel: activations have one for the whole tensor", n)
	}
	out := n.Outputs[0]
	readers := c.consumers[out]
	if len(readers) == 0 || c.m.IsOutput(out) {
		c.report("%v is alone: nothing dequantises its result", n)
	}
	for _, r := range readers {
		if r.Op != "DequantizeLinear" || r.Input(0) != out {
			c.report("%v is read by %v, not by a DequantizeLinear", n, r)
		}
	}
	if c.m.Const(n.Input(0)) != nil {
		c.report("%v quantises a constant while running: store it as int8", n)
	}
}

func (c *checker) dequantise(n *onnx.Node) {
	scale := c.parameters(n)
	if len(c.consumers[n.Outputs[0]]) == 0 {
		c.report("%v is alone: nothing reads its result", n)
	}
	if t := c.m.Const(n.Input(0)); t != nil {
		c.weightScales(n, t, len(scale))
		return
	}
	q := c.producer[n.Input(0)]
	if q == nil || q.Op != "QuantizeLinear" {
		c.report("%v is alone: its input comes from no QuantizeLinear", n)
		return
	}
	if other := c.m.Const(q.Input(1)); other != nil {
		if v, err := other.Floats(); err == nil && !slices.Equal(v, scale) {
			c.report("%v and %v are a pair with different scales", q, n)
		}
	}
}

// weightScales checks that constant weights have a scale per output channel of the node that reads them.
func (c *checker) weightScales(dq *onnx.Node, t *onnx.Tensor, scales int) {
	if t.Type != onnx.Int8 {
		c.report("%v dequantises a constant of %v: weights are int8, biases stay in float", dq, t.Type)
		return
	}
	for _, r := range c.consumers[dq.Outputs[0]] {
		if r.Input(1) != dq.Outputs[0] {
			c.report("%v feeds %v, where no weights belong", dq, r)
			continue
		}
		want := channelAxis(r)
		axis := int(dq.Attrs.Int("axis", 1))
		if axis < 0 {
			axis += len(t.Dims)
		}
		if scales > 1 && (axis != want || axis >= len(t.Dims) || t.Dims[axis] != int64(scales)) {
			c.report("%v has %d scales along axis %d of weights %v: %v wants them along axis %d", dq, scales, axis, t.Dims, r, want)
		}
		if scales == 1 && len(t.Dims) > want && t.Dims[want] > 1 {
			c.report("%v has one scale for all of weights %v: it must have one per output channel, along axis %d", dq, t.Dims, want)
		}
	}
}

// weights checks a node that TensorRT runs on int8 when data and weights are quantised: both or neither, and its bias.
func (c *checker) weights(n *onnx.Node) {
	isDQ := func(name string) bool { p := c.producer[name]; return p != nil && p.Op == "DequantizeLinear" }
	if isDQ(n.Input(0)) != isDQ(n.Input(1)) {
		c.report("%v has only one of data and weights quantised", n)
	}
	if b := n.Input(2); b != "" {
		if t := c.m.Const(b); t == nil || t.Type != onnx.Float {
			c.report("the bias of %v is not a constant of float32", n)
		}
	}
}

// strays finds int8 constants that no DequantizeLinear reads.
func (c *checker) strays() {
	for name, t := range c.m.Inits {
		if t.Type != onnx.Int8 && t.Type != onnx.Uint8 {
			continue
		}
		for _, r := range c.consumers[name] {
			if r.Op != "DequantizeLinear" && r.Op != "QuantizeLinear" {
				c.report("constant %q of %v is read by %v without a DequantizeLinear", name, t.Type, r)
			}
		}
	}
}
