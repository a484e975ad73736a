package quant

import (
	"context"
	"errors"
	"math"

	"vigil/infer/ort"
	"vigil/infer/quant/onnx"
)

// layer is what quantisation does to one weighted node on its own: its input and weights in 8 bits, everything before it
// in float.
type layer struct {
	node          *onnx.Node
	w             *weights
	signal, noise float64
	drift         []float64 // mean error per output channel
	seen          float64   // values per channel
}

// sqnr is the signal to quantisation noise ratio in dB.
func (l *layer) sqnr() float64 { return ratioDB(l.signal, l.noise) }

// most is the largest magnitude of weights. 64 is what two products of uint8 and int8 may have without saturating 16 bits.
func (c *Calibration) most(signed bool) int64 {
	if !signed && c.opts.WeightBits == 7 {
		return 64
	}
	return 127
}

// ErrNothing means that no layer is left to be quantised: the model has none with constant weights, or all stay in float.
var ErrNothing = errors.New("no layer is left to be quantised: name fewer in --float, or choose a lower limit for --auto-float")

// layers quantises every chosen layer and measures each alone, all in one run per sample: beside each float layer stands
// its 8-bit shadow, which reads the same float input. The mean error per channel goes into the bias, which takes the
// systematic part of the error out (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
// Correction", ICCV 2019, section 4.2, here with the mean measured).
func (c *Calibration) layers(ctx context.Context, p *plan, grids map[string]grid, signed bool) (map[*onnx.Node]*layer, error) {
	shadow := p.m.Clone()
	out := map[*onnx.Node]*layer{}
	byName := map[string]*layer{}
	var names []string
	rounded := map[string]string{}
	equals := c.equals(p)
	for _, n := range p.m.Nodes {
		if p.chosen[n] != kindWeights {
			continue
		}
		x := n.Input(0)
		w, err := quantise(p.m, n, c.most(signed), grids[x].scale, equals[x])
		if err != nil {
			return nil, err
		}
		l := &layer{node: n, w: w, drift: make([]float64, len(w.bias))}
		out[n] = l
		if rounded[x] == "" {
			rounded[x] = shadow.Fresh(x + ".rounded")
			from := x
			if e := equals[x]; e != nil {
				from = e.multiply(shadow, x)
			}
			quantisePair(shadow, from, x+".shadow", rounded[x], grids[x], signed)
		}
		full, diff := n.Outputs[0], shadow.Fresh(n.Name+".error")
		s := &onnx.Node{Name: n.Name + ".shadow", Op: n.Op, Attrs: n.Attrs, Inputs: []string{rounded[x]}, Outputs: []string{shadow.Fresh(n.Name + ".shadow")}}
		setConst(shadow, s, 1, "weight", w.dequantised())
		if n.Op != "MatMul" {
			setConst(shadow, s, 2, "bias", onnx.FloatTensor(w.bias, int64(len(w.bias))))
		}
		shadow.Nodes = append(shadow.Nodes, s, &onnx.Node{Name: diff, Op: "Sub", Inputs: []string{s.Outputs[0], full}, Outputs: []string{diff}})
		names = append(names, full, diff)
		byName[full], byName[diff] = l, l
	}
	if len(names) == 0 {
		return nil, ErrNothing
	}
	err := c.overSamples(ctx, shadow, names, "layers", func(name string, v *ort.ProbeValue) {
		l := byName[name]
		if name == l.node.Outputs[0] {
			for _, x := range v.Values {
				l.signal += float64(x) * float64(x)
			}
			return
		}
		l.add(v)
	})
	if err != nil {
		return nil, err
	}
	for _, l := range out {
		l.correct(c.opts.NoCorrect)
	}
	return out, nil
}

// add takes in the errors of one sample: [batch, channels, ...], or [..., channels] of a MatMul.
func (l *layer) add(v *ort.ProbeValue) {
	plane, channels := 1, len(l.drift)
	if l.node.Op != "MatMul" {
		for _, d := range v.Shape[2:] {
			plane *= int(d)
		}
	}
	for at, ch := 0, 0; at < len(v.Values); at, ch = at+plane, (ch+1)%channels {
		sum, squares := float32(0), float32(0)
		for _, e := range v.Values[at:][:plane] {
			sum += e
			squares += e * e
		}
		l.drift[ch] += float64(sum)
		l.noise += float64(squares)
	}
	l.seen += float64(len(v.Values) / channels)
}

// correct takes the mean error out of the bias, and out of the noise that is left.
func (l *layer) correct(not bool) {
	if not || l.seen == 0 || l.node.Op == "MatMul" {
		return
	}
	for c, sum := range l.drift {
		mean := sum / l.seen
		l.w.bias[c] -= float32(mean)
		l.noise = math.Max(0, l.noise-mean*sum)
	}
}
