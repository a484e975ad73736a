package quant

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/cpu"

	"vigil/infer"
	"vigil/infer/ort"
	"vigil/infer/quant/onnx"
)

// Samples are inputs to calibrate on, ready as tensors.
type Samples interface {
	// Len is how many there are.
	Len() int
	// Fill writes sample i into the model's input, row-major. It gives the same values whenever it is asked.
	Fill(ctx context.Context, i int, input []float32) error
}

// Options say how to quantise. The zero value is the default.
type Options struct {
	Method     Method  // "" is MSE
	Percentile float64 // share of the values kept by Percentile; 0 is 0.9999
	WeightBits int     // 8, or 7 for processors that saturate sums of uint8 x int8 in 16 bits; 0 asks this processor
	Float      []string
	AutoFloat  AutoFloat
	NoCorrect  bool                            // leave out the correction of biases
	NoEqualise bool                            // leave out the equalisation of channels
	NoBlocks   bool                            // CPU dialect: leave convolutions of stride 2 over few channels as they are
	Progress   func(what string, done, of int) // may be nil
}

// AutoFloat says which layers are left in float by their own signal to quantisation noise ratio: the Worst of them, and
// all below DB.
type AutoFloat struct {
	Worst int
	DB    float64
}

// HasDotProduct reports whether this processor multiplies uint8 by int8 without saturating in 16 bits: VNNI on x86-64,
// any ARM. What it answers decides the range of weights; it is asked by CPUID, as ONNX Runtime's kernels do.
func HasDotProduct() bool {
	return runtime.GOARCH != "amd64" && runtime.GOARCH != "386" || cpu.X86.HasAVX512VNNI || cpu.X86.HasAVXVNNI
}

// Check refuses options that mean nothing, before anything is run.
func (o Options) Check() error { return o.complete() }

func (o *Options) complete() error {
	if o.Method == "" {
		o.Method = MSE
	}
	if o.Percentile == 0 {
		o.Percentile = 0.9999
	}
	if o.WeightBits == 0 {
		o.WeightBits = 7
		if HasDotProduct() {
			o.WeightBits = 8
		}
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	switch {
	case !slices.Contains(Methods(), o.Method):
		return fmt.Errorf("unknown method %q: there are %v", o.Method, Methods())
	case o.WeightBits != 7 && o.WeightBits != 8:
		return fmt.Errorf("%d bits for weights: 7 or 8", o.WeightBits)
	case !(o.Percentile > 0.5 && o.Percentile <= 1):
		return fmt.Errorf("percentile %v: above 0.5, at most 1", o.Percentile)
	}
	return nil
}

// Calibration is a folded model with the distribution of each of its tensors. Both dialects are written from it.
type Calibration struct {
	rt      *ort.Runtime
	model   *onnx.Model
	inputs  []infer.Tensor
	samples Samples
	opts    Options
	hist    map[string]*histogram
	equal   map[string]*equal // by tensor
	shapes  map[string][]int64
}

// Calibrate prepares the model and measures its tensors on the samples: two runs of each.
func Calibrate(ctx context.Context, rt *ort.Runtime, model []byte, inputs []infer.Tensor, samples Samples, o Options) (*Calibration, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if len(inputs) != 1 {
		return nil, fmt.Errorf("a model with %d inputs cannot be calibrated: one is supported", len(inputs))
	}
	if samples.Len() == 0 {
		return nil, errors.New("no samples to calibrate on")
	}
	m, err := Prepare(ctx, rt, model, inputs)
	if err != nil {
		return nil, err
	}
	c := &Calibration{rt: rt, model: m, inputs: inputs, samples: samples, opts: o, hist: map[string]*histogram{}, equal: map[string]*equal{}}
	if c.shapes, err = shapes(ctx, rt, m, inputs); err != nil {
		return nil, err
	}
	if err := c.checkNames(); err != nil {
		return nil, err
	}
	return c, c.measure(ctx)
}

// checkNames refuses names of layers that are not there.
func (c *Calibration) checkNames() error {
	for _, name := range c.opts.Float {
		if !slices.ContainsFunc(c.model.Nodes, func(n *onnx.Node) bool { return n.Name == name }) {
			var have []string
			for _, n := range c.model.Nodes {
				if weighted(c.model, n) {
					have = append(have, n.Name)
				}
			}
			return fmt.Errorf("no layer is called %q; the model has %v", name, have)
		}
	}
	return nil
}

// measure fills the histograms.
func (c *Calibration) measure(ctx context.Context) error {
	for _, name := range c.floatTensors() {
		c.hist[name] = &histogram{}
	}
	bad := ""
	makers, tops := equalisable(c.model), map[string]peaks{}
	if c.opts.NoEqualise {
		makers = nil
	}
	for name := range makers {
		tops[name] = make(peaks, c.shapes[name][1])
	}
	err := c.overSamples(ctx, c.model, c.floatTensors(), "limits", func(name string, v *ort.ProbeValue) {
		if !c.hist[name].limits(v.Values) {
			bad = name
		}
		if tops[name] != nil {
			tops[name].see(v.Shape, v.Values)
		}
	})
	if err == nil && bad != "" {
		err = fmt.Errorf("tensor %q holds values that are not numbers: the model cannot be quantised on these samples", bad)
	}
	if err != nil {
		return err
	}
	for name, maker := range makers {
		e := equalTo(maker, tops[name], len(c.shapes[name]))
		e.hist.lo, e.hist.hi, e.hist.seen = 0, slices.Max(tops[name]), true
		if c.hist[name].lo < 0 {
			e.hist.lo = -e.hist.hi
		}
		c.equal[name] = e
	}
	var scaled []float32
	return c.overSamples(ctx, c.model, c.floatTensors(), "histograms", func(name string, v *ort.ProbeValue) {
		c.hist[name].count(v.Values)
		if e := c.equal[name]; e != nil {
			scaled = e.scaled(v.Shape, v.Values, scaled)
			e.hist.count(scaled)
		}
	})
}

// floatTensors are the input and what nodes compute, as far as it is float, in order.
func (c *Calibration) floatTensors() []string {
	names := []string{c.inputs[0].Name}
	types := c.model.Clone()
	types.Outputs = nil
	for _, n := range c.model.Nodes {
		for _, o := range n.Outputs {
			if o != "" && len(c.shapes[o]) > 0 {
				types.Outputs = append(types.Outputs, onnx.Value{Name: o, Type: onnx.Float})
			}
		}
	}
	fixTypes(types)
	for _, v := range types.Outputs {
		if v.Type == onnx.Float {
			names = append(names, v.Name)
		}
	}
	return names
}

// overSamples runs a model on every sample and shows the named tensors; the input is shown without being an output.
func (c *Calibration) overSamples(ctx context.Context, m *onnx.Model, names []string, what string, see func(name string, v *ort.ProbeValue)) error {
	outputs := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == c.inputs[0].Name })
	p, err := openProbe(c.rt, m, c.inputs, outputs, ort.ProbeOptions{})
	if err != nil {
		return err
	}
	defer p.Close()
	input := make([]float32, c.inputs[0].Elements())
	for i := range c.samples.Len() {
		if err := c.samples.Fill(ctx, i, input); err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
		if len(outputs) < len(names) {
			see(c.inputs[0].Name, &ort.ProbeValue{Values: input, Shape: c.inputs[0].Shape})
		}
		err := p.Run(ctx, [][]float32{input}, func(k int, v *ort.ProbeValue) error {
			see(outputs[k], v)
			return nil
		})
		if err != nil {
			return err
		}
		c.opts.Progress(what, i+1, c.samples.Len())
	}
	return nil
}
