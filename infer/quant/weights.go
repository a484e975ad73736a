package quant

import (
	"math"
	"slices"

	"vigil/infer/quant/onnx"
)

// weights are the quantised parameters of one layer.
type weights struct {
	values []int64   // int8
	scale  []float32 // per output channel
	dims   []int64
	axis   int
	bias   []float32
}

// mostBias bounds a quantised bias, in steps, to leave room for the sum beside it.
const mostBias = 1 << 30

// quantise rounds the weights of a layer, symmetric and per output channel, to magnitudes of at most most. inScale is the
// step of its input: a bias is stored in steps of input times weights, so a channel of tiny weights and a large bias gets
// a coarser scale. in is the equalisation of the input, nil if there is none.
func quantise(m *onnx.Model, n *onnx.Node, most int64, inScale float64, in *equal) (*weights, error) {
	t := m.Const(n.Input(1))
	values, err := t.Floats()
	if err != nil {
		return nil, err
	}
	if in != nil {
		in.takeOut(n, t.Dims, values)
	}
	w := &weights{dims: t.Dims, axis: channelAxis(n), values: make([]int64, len(values))}
	if w.bias, err = bias(m, n); err != nil {
		return nil, err
	}
	peak := make([]float64, len(w.bias))
	eachChannel(t.Dims, w.axis, func(i, c int) { peak[c] = math.Max(peak[c], math.Abs(float64(values[i]))) })
	w.scale = make([]float32, len(peak))
	for c, v := range peak {
		least := math.Abs(float64(w.bias[c])) / (inScale * mostBias)
		w.scale[c] = float32(math.Max(math.Max(v/float64(most), least), leastScale))
	}
	eachChannel(t.Dims, w.axis, func(i, c int) {
		q := math.RoundToEven(float64(values[i]) / float64(w.scale[c]))
		w.values[i] = int64(math.Min(math.Max(q, float64(-most)), float64(most)))
	})
	return w, nil
}

// put multiplies what the layer gives by the factors of its output's channels; nothing is rounded anew.
func (w *weights) put(out *equal) {
	w.scale, w.bias = slices.Clone(w.scale), slices.Clone(w.bias)
	for c, f := range out.factor {
		w.scale[c] = float32(float64(w.scale[c]) * f)
		w.bias[c] = float32(float64(w.bias[c]) * f)
	}
}

// dequantised are the weights as 8-bit inference sees them.
func (w *weights) dequantised() *onnx.Tensor {
	out := make([]float32, len(w.values))
	eachChannel(w.dims, w.axis, func(i, c int) { out[i] = float32(w.values[i]) * w.scale[c] })
	return onnx.FloatTensor(out, w.dims...)
}

// biasSteps are the bias in int32 steps of input times weights, and the size of a step per channel.
func (w *weights) biasSteps(inScale float64) (steps []int64, scale []float32) {
	for c, b := range w.bias {
		s := float32(inScale * float64(w.scale[c]))
		scale = append(scale, s)
		q := math.RoundToEven(float64(b) / float64(s))
		steps = append(steps, int64(math.Min(math.Max(q, -math.MaxInt32), math.MaxInt32)))
	}
	return steps, scale
}
