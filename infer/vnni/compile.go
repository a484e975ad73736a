package vnni

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"vigil/infer"
	"vigil/infer/quant/onnx"
	"vigil/kernels/int8"
)

// ErrGraph means that a model has something in it that our kernels do not compute; ONNX Runtime does.
var ErrGraph = errors.New("our 8-bit kernels do not take the model")

// errFloat is the ErrGraph of a model that has nothing in 8 bits.
var errFloat = fmt.Errorf("%w: it is in float", ErrGraph)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrGraph, fmt.Errorf(format, args...))
}

// value is what a tensor of the graph is while its nodes are read in order. Exactly one of what follows says it.
type value struct {
	input  *source       // float32 that the caller fills
	pixels *quantised    // 8 bits, in the arena
	real   *view         // what DequantizeLinear makes of 8 bits
	weight *constant     // what it makes of a constant
	layer  *int8.Layer   // a layer whose result is float until QuantizeLinear follows
	size   int8.Shape    // of that result
	parts  [2]*quantised // of a sum whose result is float until then; [0] is what a layer moves values of
}

// source is an input of the model, in blocks where SpaceToDepth follows.
type source struct {
	number int
	shape  int8.Shape
	block  int
}

// quantised is a tensor of 8 bits.
type quantised struct {
	tensor int
	shape  int8.Shape
	scale  float32
	zero   uint8
	// conv is the convolution that makes it, not yet in the list of layers: a sum that follows may take it in.
	conv *int8.Layer
}

// view is a tensor of 8 bits as numbers, and how an output shows it.
type view struct {
	of      *quantised
	pixels  bool // rows of pixels, after a Transpose; else planes
	flat    bool // reshaped: only an output may follow
	sigmoid bool
}

// constant is an initialiser with its scale.
type constant struct {
	t      *onnx.Tensor
	scales []float32
}

// compiler turns a graph into layers.
type compiler struct {
	m       *onnx.Model
	readers map[string][]*onnx.Node
	values  map[string]*value
	layers  []int8.Layer
	tensors []int8.Shape
	copies  [][]signed // of weights
}

// program is what a model is to the kernels. Float tensors are the inputs, then the outputs, in their order.
type program struct {
	layers  []int8.Layer
	tensors []int8.Shape
	copies  [][]signed
}

// wipe clears the weights, which are a secret.
func wipe(copies [][]signed) {
	for _, w := range copies {
		clear(w)
	}
}

// compile reads a model of infer.DialectCPU. Errors: ErrGraph, and the reader's.
func compile(data []byte, inputs, outputs []infer.Tensor) (_ *program, err error) {
	m, err := onnx.Read(data)
	if err != nil {
		return nil, err
	}
	defer m.Wipe()
	if !slices.ContainsFunc(m.Nodes, func(n *onnx.Node) bool { return n.Op == "QuantizeLinear" }) {
		return nil, errFloat
	}
	c := &compiler{m: m, readers: m.Consumers(), values: map[string]*value{}}
	defer func() {
		if err != nil {
			wipe(c.copies)
		}
	}()
	for i, t := range inputs {
		if len(t.Shape) != 4 || t.Shape[0] != 1 || t.Elements() == 0 {
			return nil, refuse("input %v: one picture of planes is taken", t)
		}
		c.values[t.Name] = &value{input: &source{i, int8.Shape{H: int(t.Shape[2]), W: int(t.Shape[3]), C: int(t.Shape[1])}, 1}}
	}
	for _, n := range m.Nodes {
		read := readers[n.Op]
		if read == nil || n.Domain != "" || len(n.Outputs) != 1 {
			return nil, refuse("%v", n)
		}
		v, err := read(c, n)
		if err != nil {
			return nil, refuse("%v: %w", n, err)
		}
		c.values[n.Outputs[0]] = v
	}
	for i, t := range outputs {
		if err := c.output(len(inputs)+i, t); err != nil {
			return nil, refuse("output %q: %w", t.Name, err)
		}
	}
	return &program{c.layers, c.tensors, c.copies}, nil
}

// readers are the operators that are known.
var readers = map[string]func(*compiler, *onnx.Node) (*value, error){
	"QuantizeLinear":   (*compiler).quantize,
	"DequantizeLinear": (*compiler).dequantize,
	"SpaceToDepth":     (*compiler).blocks,
	"Conv":             (*compiler).conv,
	"Add":              (*compiler).add,
	"MaxPool":          (*compiler).maxPool,
	"Resize":           (*compiler).resize,
	"Transpose":        (*compiler).transpose,
	"Reshape":          (*compiler).reshape,
	"Sigmoid":          (*compiler).sigmoid,
}

// of is what an input of a node is; never nil.
func (c *compiler) of(n *onnx.Node, i int) *value {
	if v := c.values[n.Input(i)]; v != nil {
		return v
	}
	return &value{}
}

var (
	errInput = errors.New("what it reads is not of 8 bits, or not of a kind that is taken")
	errSize  = errors.New("sizes do not fit")
)

// step reads the scale and zero point of QuantizeLinear or DequantizeLinear, one for the whole tensor.
func (c *compiler) step(n *onnx.Node) (scale float32, zero uint8, err error) {
	s, z := c.m.Const(n.Input(1)), c.m.Const(n.Input(2))
	if s == nil || z == nil || s.Len() != 1 || z.Len() != 1 || z.Type != onnx.Uint8 {
		return 0, 0, errors.New("one constant step and one zero point of uint8 are taken")
	}
	scales, err := s.Floats()
	if err != nil {
		return 0, 0, err
	}
	if !(scales[0] > 0) || math.IsInf(float64(scales[0]), 0) {
		return 0, 0, fmt.Errorf("step %g", scales[0])
	}
	return scales[0], z.Data[0], nil
}

// tensor makes a tensor of 8 bits.
func (c *compiler) tensor(s int8.Shape, scale float32, zero uint8) *quantised {
	c.tensors = append(c.tensors, s)
	return &quantised{tensor: len(c.tensors) - 1, shape: s, scale: scale, zero: zero}
}

// emit appends a layer.
func (c *compiler) emit(l *int8.Layer) { c.layers = append(c.layers, *l) }

// made emits what makes a tensor, if that was put off.
func (c *compiler) made(q *quantised) *quantised {
	if q.conv != nil {
		c.emit(q.conv)
		q.conv = nil
	}
	return q
}

// quantize ends what was computed in float.
func (c *compiler) quantize(n *onnx.Node) (*value, error) {
	scale, zero, err := c.step(n)
	if err != nil {
		return nil, err
	}
	v := c.of(n, 0)
	if v.layer != nil && (len(c.readers[n.Input(0)]) != 1 || c.m.IsOutput(n.Input(0))) {
		return nil, errors.New("what it rounds is read by others too")
	}
	switch {
	case v.input != nil:
		s := v.input.shape
		if s.H%v.input.block != 0 || s.W%v.input.block != 0 {
			return nil, errSize
		}
		q := c.tensor(int8.Shape{H: s.H / v.input.block, W: s.W / v.input.block, C: s.C * v.input.block * v.input.block}, scale, zero)
		c.emit(&int8.Layer{Name: n.Name, Kind: int8.Quantize, In: v.input.number, Add: int8.None, Out: q.tensor, Shape: s, Block: v.input.block, Scale: scale, OutZero: zero})
		return &value{pixels: q}, nil
	case v.layer != nil && v.parts[0] != nil:
		return c.endMove(v, scale, zero)
	case v.layer != nil:
		return c.endConv(v, scale, zero)
	case v.parts[0] != nil:
		return c.endSum(n, v, scale, zero)
	}
	return nil, errInput
}

// endConv gives a convolution its result.
func (c *compiler) endConv(v *value, scale float32, zero uint8) (*value, error) {
	l, q := v.layer, c.tensor(v.size, scale, zero)
	l.Out, l.OutZero = q.tensor, zero
	for i := range l.Scales {
		l.Scales[i] = l.Scales[i] / scale
	}
	if l.Kind == int8.Conv {
		q.conv = l
	} else {
		c.emit(l)
	}
	return &value{pixels: q}, nil
}

// endMove gives its result to a layer that only moves values: the step may not change.
func (c *compiler) endMove(v *value, scale float32, zero uint8) (*value, error) {
	l, from := v.layer, v.parts[0]
	if from.scale != scale || from.zero != zero {
		return nil, errors.New("the step changes where values are only moved")
	}
	q := c.tensor(v.size, scale, zero)
	l.Out = q.tensor
	c.emit(l)
	return &value{pixels: q}, nil
}

// endSum gives a sum its result: within the convolution that makes one of its parts, if nobody else reads that.
func (c *compiler) endSum(n *onnx.Node, v *value, scale float32, zero uint8) (*value, error) {
	first, second := v.parts[0], v.parts[1]
	// ONNX Runtime's compilers fuse the first product, and what is rounded otherwise is another step here and there.
	zeros := math.FMA(float64(first.scale/scale), float64(first.zero), float64(second.scale/scale*float32(second.zero)))
	fixed := float32(zero) - float32(zeros)
	if first.conv == nil {
		first, second = second, first
	}
	c.made(second)
	q := c.tensor(first.shape, scale, zero)
	a, b := first.scale/scale, second.scale/scale
	if l := first.conv; l != nil {
		l.Add, l.Out, l.A, l.B, l.Fixed = second.tensor, q.tensor, a, b, fixed
		first.conv = nil
		c.emit(l)
		return &value{pixels: q}, nil
	}
	c.emit(&int8.Layer{Name: n.Name, Kind: int8.Sum, In: first.tensor, Add: second.tensor, Out: q.tensor, Shape: first.shape, A: a, B: b, Fixed: fixed})
	return &value{pixels: q}, nil
}

// dequantize shows 8 bits, or a constant, as numbers.
func (c *compiler) dequantize(n *onnx.Node) (*value, error) {
	if t := c.m.Const(n.Input(0)); t != nil {
		s := c.m.Const(n.Input(1))
		if s == nil || t.Type != onnx.Int8 && t.Type != onnx.Int32 || n.Attrs.Int("axis", 1) != 0 && s.Len() != 1 {
			return nil, errors.New("constants of int8 and int32 with a scale a channel are taken")
		}
		if z := c.m.Const(n.Input(2)); n.Input(2) != "" && (z == nil || slices.ContainsFunc(z.Data, func(b byte) bool { return b != 0 })) {
			return nil, errors.New("a constant has a zero point")
		}
		scales, err := s.Floats()
		return &value{weight: &constant{t, scales}}, err
	}
	q := c.of(n, 0).pixels
	if q == nil {
		return nil, errInput
	}
	scale, zero, err := c.step(n)
	if err != nil {
		return nil, err
	}
	if scale != q.scale || zero != q.zero {
		return nil, errors.New("its step is not the one that the values were rounded with")
	}
	return &value{real: &view{of: q}}, nil
}

func (c *compiler) blocks(n *onnx.Node) (*value, error) {
	in := c.of(n, 0).input
	if in == nil || in.block != 1 || n.Attrs.Int("blocksize", 0) != 2 {
		return nil, errors.New("it is taken for an input and blocks of two only")
	}
	return &value{input: &source{in.number, in.shape, 2}}, nil
}

// plain is what a node computes with: 8 bits that nothing was done to since.
func (c *compiler) plain(n *onnx.Node, i int) *quantised {
	v := c.of(n, i).real
	if v == nil || v.pixels || v.flat || v.sigmoid {
		return nil
	}
	return v.of
}

// add is a sum of two tensors of one size.
func (c *compiler) add(n *onnx.Node) (*value, error) {
	a, b := c.plain(n, 0), c.plain(n, 1)
	if a == nil || b == nil {
		return nil, errInput
	}
	if a.shape != b.shape || a == b {
		return nil, errSize
	}
	for i, q := range []*quantised{a, b} { // a convolution is taken into the sum only where nobody else reads it
		if q.conv != nil && len(c.readers[n.Input(i)])+c.others(n.Input(i)) != 1 {
			c.made(q)
		}
	}
	return &value{parts: [2]*quantised{a, b}}, nil
}

// others counts who reads 8 bits besides the node that makes this tensor of them.
func (c *compiler) others(name string) int {
	for _, n := range c.m.Nodes {
		if n.Outputs[0] == name {
			return len(c.readers[n.Input(0)]) - 1
		}
	}
	return 1
}

func (c *compiler) maxPool(n *onnx.Node) (*value, error) {
	q := c.plain(n, 0)
	if q == nil {
		return nil, errInput
	}
	k, s := n.Attrs.Ints("kernel_shape"), n.Attrs.Ints("strides")
	pads, dilations := n.Attrs.Ints("pads"), n.Attrs.Ints("dilations")
	odd := func(v int64) bool { return v != 0 }
	if len(k) != 2 || k[0] != k[1] || k[0] < 1 || !slices.Equal(k, s) || slices.ContainsFunc(pads, odd) || slices.ContainsFunc(dilations, func(v int64) bool { return v != 1 }) ||
		int64(q.shape.H)%k[0] != 0 || int64(q.shape.W)%k[0] != 0 || n.Attrs.Text("auto_pad", "NOTSET") != "NOTSET" {
		return nil, errors.New("only squares that lie side by side are taken")
	}
	b := int(k[0])
	return c.move(n, q, int8.Max, b, int8.Shape{H: q.shape.H / b, W: q.shape.W / b, C: q.shape.C}), nil
}

// move is a layer that picks or repeats values.
func (c *compiler) move(n *onnx.Node, q *quantised, kind int8.Kind, block int, size int8.Shape) *value {
	c.made(q)
	return &value{layer: &int8.Layer{Name: n.Name, Kind: kind, In: q.tensor, Add: int8.None, Shape: q.shape, Block: block}, size: size, parts: [2]*quantised{q}}
}

// resize is taken where every pixel is repeated.
func (c *compiler) resize(n *onnx.Node) (*value, error) {
	q := c.plain(n, 0)
	if q == nil {
		return nil, errInput
	}
	t := c.m.Const(n.Input(2))
	if t == nil || t.Len() != 4 || n.Input(3) != "" || n.Attrs.Text("mode", "nearest") != "nearest" {
		return nil, errors.New("only the nearest pixel at constant scales is taken")
	}
	scales, err := t.Floats()
	if err != nil {
		return nil, err
	}
	how := n.Attrs.Text("coordinate_transformation_mode", "half_pixel") + ", " + n.Attrs.Text("nearest_mode", "round_prefer_floor")
	f := scales[2]
	if scales[0] != 1 || scales[1] != 1 || scales[3] != f || f < 1 || f > 16 || f != float32(int(f)) || !slices.Contains([]string{"asymmetric, floor", "half_pixel, round_prefer_floor"}, how) {
		return nil, fmt.Errorf("scales %v, %s", scales, how)
	}
	b := int(f)
	return c.move(n, q, int8.Repeat, b, int8.Shape{H: q.shape.H * b, W: q.shape.W * b, C: q.shape.C}), nil
}

func (c *compiler) transpose(n *onnx.Node) (*value, error) {
	v := c.of(n, 0).real
	if v == nil || v.pixels || v.flat || !slices.Equal(n.Attrs.Ints("perm"), []int64{0, 2, 3, 1}) {
		return nil, errors.New("only planes to pixels, before an output, is taken")
	}
	w := *v
	w.pixels = true
	return &value{real: &w}, nil
}

// reshape is taken before an output, whose size is known: the values stay in their order.
func (c *compiler) reshape(n *onnx.Node) (*value, error) {
	v := c.of(n, 0).real
	if v == nil {
		return nil, errInput
	}
	w := *v
	w.flat = true
	return &value{real: &w}, nil
}

func (c *compiler) sigmoid(n *onnx.Node) (*value, error) {
	v := c.of(n, 0).real
	if v == nil || v.sigmoid {
		return nil, errInput
	}
	w := *v
	w.sigmoid = true
	return &value{real: &w}, nil
}

// output shows a tensor of 8 bits as an output. What is done to each value on its own is a table.
func (c *compiler) output(number int, t infer.Tensor) error {
	v := c.values[t.Name]
	if v == nil || v.real == nil {
		return errInput
	}
	q := c.made(v.real.of)
	if q.shape.Elements() != t.Elements() {
		return fmt.Errorf("%w: %v and %v", errSize, q.shape, t.Shape)
	}
	var table [256]float32
	for i := range table {
		x := float32(i-int(q.zero)) * q.scale
		if v.real.sigmoid {
			x = float32(1 / (1 + math.Exp(-float64(x))))
		}
		table[i] = x
	}
	c.emit(&int8.Layer{Name: t.Name, Kind: int8.LookUp, In: q.tensor, Add: int8.None, Out: number, Shape: q.shape, Table: &table, Planes: !v.real.pixels})
	return nil
}
