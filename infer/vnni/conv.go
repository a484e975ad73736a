package vnni

import (
	"errors"
	"fmt"
	"math"

	"vigil/infer/quant/onnx"
	"vigil/kernels/int8"
)

// conv reads a convolution; QuantizeLinear ends it.
func (c *compiler) conv(n *onnx.Node) (*value, error) {
	q, w := c.plain(n, 0), c.of(n, 1).weight
	if q == nil {
		return nil, errInput
	}
	if w == nil || w.t.Type != onnx.Int8 || len(w.t.Dims) != 4 {
		return nil, errors.New("weights of int8 with four axes are taken")
	}
	c.made(q)
	l := &int8.Layer{Name: n.Name, Kind: int8.Conv, In: q.tensor, Add: int8.None, Shape: q.shape, InZero: q.zero}
	out, in := int(w.t.Dims[0]), int(w.t.Dims[1])
	switch group := n.Attrs.Int("group", 1); {
	case group == int64(q.shape.C) && in == 1 && out == q.shape.C:
		l.Kind = int8.Depthwise
	case group == 1 && in == q.shape.C:
	default:
		return nil, fmt.Errorf("%d groups of %d for %d channels: dense ones and one a channel are taken", group, in, q.shape.C)
	}
	size := int8.Shape{C: out}
	var err error
	size.H, size.W, err = geometry(n, l, w.t.Dims, q.shape)
	if err != nil {
		return nil, err
	}
	l.Weights = make([]signed, len(w.t.Data))
	c.copies = append(c.copies, l.Weights)
	for i, b := range w.t.Data {
		l.Weights[i] = signed(b)
	}
	if l.Scales, err = channelScales(w, out, q.scale); err != nil {
		return nil, err
	}
	if l.Bias, err = c.bias(n, l, out); err != nil {
		return nil, err
	}
	return &value{layer: l, size: size}, nil
}

// channelScales are the scales of the sums: a step of the input times one of the weights.
func channelScales(w *constant, out int, input float32) ([]float32, error) {
	if len(w.scales) != 1 && len(w.scales) != out {
		return nil, fmt.Errorf("%d scales for %d channels", len(w.scales), out)
	}
	scales := make([]float32, out)
	for i := range scales {
		scales[i] = input * w.scales[min(i, len(w.scales)-1)]
	}
	return scales, nil
}

// bias is that of the sums, with what the input's zero point adds to every sum taken out.
func (c *compiler) bias(n *onnx.Node, l *int8.Layer, out int) ([]int32, error) {
	b := make([]int64, out)
	if n.Input(2) != "" {
		k := c.of(n, 2).weight
		if k == nil || k.t.Type != onnx.Int32 || k.t.Len() != out {
			return nil, errors.New("a bias of int32, one a channel, is taken")
		}
		if len(k.scales) != 1 && len(k.scales) != out {
			return nil, errSize
		}
		for i, s := range l.Scales {
			if have := k.scales[min(i, len(k.scales)-1)]; math.Abs(float64(have-s)) > 1e-5*float64(s) {
				return nil, errors.New("the step of its bias is not that of its sums")
			}
		}
		var err error
		if b, err = k.t.Ints(); err != nil {
			return nil, err
		}
	}
	each := len(l.Weights) / out
	bias := make([]int32, out)
	for o := range bias {
		sum := b[o]
		for _, w := range l.Weights[o*each:][:each] {
			sum -= int64(l.InZero) * int64(w)
		}
		if bias[o] = int32(sum); int64(bias[o]) != sum {
			return nil, errors.New("its bias does not fit 32 bits")
		}
	}
	return bias, nil
}

// geometry reads kernel, strides, dilations and padding and says how large the result is.
func geometry(n *onnx.Node, l *int8.Layer, dims []int64, in int8.Shape) (height, width int, err error) {
	pads, strides, dilations := n.Attrs.Ints("pads"), n.Attrs.Ints("strides"), n.Attrs.Ints("dilations")
	if len(pads) == 0 {
		pads = make([]int64, 4)
	}
	for _, list := range []*[]int64{&strides, &dilations} {
		if len(*list) == 0 {
			*list = []int64{1, 1}
		}
	}
	valid := func(v int64) bool { return v >= 0 && v <= 64 }
	switch {
	case len(pads) != 4 || len(strides) != 2 || n.Attrs.Text("auto_pad", "NOTSET") != "NOTSET":
		return 0, 0, errors.New("two axes with explicit padding are taken")
	case len(dilations) != 2 || !valid(dilations[0]-1) || !valid(dilations[1]-1):
		return 0, 0, errSize
	case !valid(pads[0]) || !valid(pads[1]) || !valid(pads[2]) || !valid(pads[3]) || !valid(strides[0]-1) || !valid(strides[1]-1) || !valid(dims[2]-1) || !valid(dims[3]-1):
		return 0, 0, errSize
	}
	size := [2]int{in.H, in.W}
	var out [2]int
	for d := range 2 {
		l.Kernel[d], l.Stride[d], l.Dilation[d], l.Pad[d] = int(dims[2+d]), int(strides[d]), int(dilations[d]), int(pads[d])
		span := size[d] + int(pads[d]+pads[2+d]) - (l.Kernel[d]-1)*l.Dilation[d] - 1
		if span < 0 {
			return 0, 0, errSize
		}
		out[d] = span/l.Stride[d] + 1
	}
	return out[0], out[1], nil
}
