package int8_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"vigil/kernels/int8"
)

// processor skips a test where the processor cannot run the layers.
func processor(t *testing.T) {
	t.Helper()
	if err := int8.Have(); err != nil {
		t.Skip("skipped: ", err)
	}
}

// What follows is the reference: the layers as ONNX defines them, value by value.

type pixels struct {
	shape  int8.Shape
	values []uint8 // NHWC without filling
}

func (p *pixels) at(y, x, c int) uint8 { return p.values[(y*p.shape.W+x)*p.shape.C+c] }

func round(v float32) int { return int(math.RoundToEven(float64(v))) }

func keep(v int) uint8 { return uint8(min(max(v, 0), 255)) }

func reference(l *int8.Layer, in, add *pixels, out int8.Shape) *pixels {
	r := &pixels{shape: out, values: make([]uint8, out.Elements())}
	for y := range out.H {
		for x := range out.W {
			for c := range out.C {
				v := referenceAt(l, in, y, x, c)
				if add != nil {
					other := float32(add.at(y, x, c))
					fixed := float32(math.FMA(float64(other), float64(l.B), float64(l.Fixed)))
					v = keep(round(float32(math.FMA(float64(v), float64(l.A), float64(fixed)))))
				}
				r.values[(y*out.W+x)*out.C+c] = v
			}
		}
	}
	return r
}

func referenceAt(l *int8.Layer, in *pixels, y, x, c int) uint8 {
	switch l.Kind {
	case int8.Sum:
		return in.at(y, x, c)
	case int8.Repeat:
		return in.at(y/l.Block, x/l.Block, c)
	case int8.Max:
		most := uint8(0)
		for i := range l.Block * l.Block {
			most = max(most, in.at(y*l.Block+i/l.Block, x*l.Block+i%l.Block, c))
		}
		return most
	}
	sum := int(l.Bias[c])
	positions := l.Kernel[0] * l.Kernel[1]
	for t := range positions {
		row, col := y*l.Stride[0]-l.Pad[0]+t/l.Kernel[1]*l.Dilation[0], x*l.Stride[1]-l.Pad[1]+t%l.Kernel[1]*l.Dilation[1]
		value := func(ch int) int {
			if row < 0 || row >= in.shape.H || col < 0 || col >= in.shape.W {
				return int(l.InZero)
			}
			return int(in.at(row, col, ch))
		}
		if l.Kind == int8.Depthwise {
			sum += value(c) * int(l.Weights[c*positions+t])
			continue
		}
		for i := range in.shape.C {
			sum += value(i) * int(l.Weights[(c*in.shape.C+i)*positions+t])
		}
	}
	return keep(round(float32(sum)*l.Scales[c]) + int(l.OutZero))
}

// run runs one layer on what stands for its inputs and returns what it read and what it made. Quantize makes up to 16
// channels; wider inputs are made of those by a convolution, and looked up as well.
func run(t *testing.T, r *rand.Rand, l int8.Layer, out int8.Shape, inputs ...int8.Shape) (read []*pixels, made *pixels) {
	t.Helper()
	var b builder
	for _, in := range inputs {
		narrow := in
		narrow.C = min(in.C, 16)
		from := random(r, narrow)
		number := b.tensor(narrow)
		b.add(int8.Layer{Name: "in", Kind: int8.Quantize, In: b.float(floatsOf(from)), Add: int8.None, Out: number, Shape: narrow, Block: 1, Scale: 1})
		if narrow != in {
			widen := convolution(r, int8.Conv, narrow, in, 1, 1, 0)
			widen.In, widen.Add, widen.Out = number, int8.None, b.tensor(in)
			b.add(widen)
			number = widen.Out
		}
		b.numbers = append(b.numbers, number)
	}
	results := make([][]float32, 0, 3)
	look := func(tensor int, s int8.Shape) {
		mem := make([]float32, s.Elements())
		results = append(results, mem)
		b.add(int8.Layer{Name: "out", Kind: int8.LookUp, In: tensor, Add: int8.None, Out: b.float(mem), Shape: s, Table: &identity})
	}
	l.In, l.Add, l.Out = b.numbers[0], int8.None, b.tensor(out)
	if len(inputs) > 1 {
		l.Add = b.numbers[1]
	}
	b.add(l)
	for i, in := range inputs {
		look(b.numbers[i], in)
	}
	look(l.Out, out)
	b.run(t)
	for i, s := range append(inputs, out) {
		made = &pixels{shape: s, values: make([]uint8, s.Elements())}
		for k, v := range results[i] {
			made.values[k] = uint8(v)
		}
		read = append(read, made)
	}
	return read[:len(inputs)], made
}

// identity looks up every value as itself.
var identity = func() (t [256]float32) {
	for i := range t {
		t[i] = float32(i)
	}
	return t
}()

// builder puts a network together.
type builder struct {
	layers  []int8.Layer
	tensors []int8.Shape
	floats  [][]float32
	numbers []int
}

func (b *builder) add(l int8.Layer) { b.layers = append(b.layers, l) }

func (b *builder) tensor(s int8.Shape) int {
	b.tensors = append(b.tensors, s)
	return len(b.tensors) - 1
}

func (b *builder) float(mem []float32) int {
	b.floats = append(b.floats, mem)
	return len(b.floats) - 1
}

// run runs the network once.
func (b *builder) run(t *testing.T) {
	t.Helper()
	defer int8.WithGap(4096)()
	n, err := int8.New(b.layers, b.tensors)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	var sizes []int
	for _, mem := range b.floats {
		sizes = append(sizes, len(mem))
	}
	a, err := n.NewArena(sizes)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, mem := range b.floats {
		copy(a.Float(i), mem)
	}
	a.FillGaps(n, b.tensors)
	if !n.Run(a) {
		t.Fatal("the run was stopped")
	}
	if err := a.CheckGaps(n, b.tensors); err != nil {
		t.Fatal(err)
	}
	for i, mem := range b.floats {
		copy(mem, a.Float(i))
	}
	a.Stop()
	if n.Run(a) {
		t.Fatal("a run that was to stop came to its end")
	}
}

// floatsOf is pixels as planes of float32.
func floatsOf(p *pixels) []float32 {
	mem := make([]float32, p.shape.Elements())
	for i := range p.shape.H * p.shape.W {
		for c := range p.shape.C {
			mem[c*p.shape.H*p.shape.W+i] = float32(p.values[i*p.shape.C+c])
		}
	}
	return mem
}

func random(r *rand.Rand, s int8.Shape) *pixels {
	p := &pixels{shape: s, values: make([]uint8, s.Elements())}
	for i := range p.values {
		p.values[i] = uint8(r.UintN(256))
	}
	return p
}

func convolution(r *rand.Rand, kind int8.Kind, in, out int8.Shape, kernel, stride, pad int) int8.Layer {
	l := int8.Layer{Name: "layer", Kind: kind, Shape: in, Kernel: [2]int{kernel, kernel}, Dilation: [2]int{1, 1}, Stride: [2]int{stride, stride}, Pad: [2]int{pad, pad},
		InZero: uint8(r.UintN(256)), OutZero: uint8(r.UintN(256)), A: 0.7, B: 0.41, Fixed: -3.3}
	each := kernel * kernel
	if kind == int8.Conv {
		each *= in.C
	}
	for range out.C {
		sum := 0
		for range each {
			w := r.IntN(256) - 128
			sum += w
			l.Weights = append(l.Weights, signed(w))
		}
		l.Bias = append(l.Bias, int32(-int(l.InZero)*sum+r.IntN(2000)-1000))
		l.Scales = append(l.Scales, (0.5+r.Float32())/float32(92*math.Sqrt(float64(each))))
	}
	return l
}

func TestLayersEqualTheReference(t *testing.T) {
	processor(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		kind                int8.Kind
		in                  int8.Shape
		channels            int
		kernel, stride, pad int
		add                 bool
	}{
		{int8.Conv, int8.Shape{H: 7, W: 9, C: 16}, 64, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 7, W: 9, C: 12}, 64, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 1, W: 1, C: 16}, 128, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 6, C: 16}, 16, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 1, W: 3, C: 16}, 16, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 6, C: 3}, 10, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 6, C: 3}, 30, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 6, C: 16}, 47, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 6, C: 16}, 150, 1, 1, 0, false},
		{int8.Conv, int8.Shape{H: 9, W: 9, C: 16}, 64, 3, 1, 1, false},
		{int8.Conv, int8.Shape{H: 9, W: 8, C: 7}, 32, 3, 2, 1, false},
		{int8.Conv, int8.Shape{H: 9, W: 8, C: 7}, 16, 2, 1, 1, false},
		{int8.Conv, int8.Shape{H: 9, W: 8, C: 16}, 16, 5, 1, 2, false},
		{int8.Conv, int8.Shape{H: 4, W: 4, C: 16}, 16, 1, 1, 0, true},
		{int8.Conv, int8.Shape{H: 4, W: 4, C: 8}, 8, 3, 1, 1, true},
		{int8.Depthwise, int8.Shape{H: 7, W: 9, C: 16}, 16, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 12, C: 16}, 16, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 1, W: 1, C: 16}, 16, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 9, C: 5}, 5, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 8, W: 8, C: 16}, 16, 3, 2, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 7, C: 16}, 16, 7, 1, 0, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 6, C: 16}, 16, 5, 1, 2, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 5, C: 32}, 32, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 5, C: 30}, 30, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 5, C: 48}, 48, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 5, C: 64}, 64, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 5, C: 192}, 192, 3, 1, 1, false},
		{int8.Depthwise, int8.Shape{H: 8, W: 6, C: 128}, 128, 3, 2, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 7, C: 128}, 128, 3, 2, 1, false},
		{int8.Depthwise, int8.Shape{H: 8, W: 8, C: 32}, 32, 3, 2, 1, false},
		{int8.Depthwise, int8.Shape{H: 7, W: 7, C: 128}, 128, 7, 1, 0, false},
		{int8.Conv, int8.Shape{H: 5, W: 5, C: 256}, 128, 1, 1, 0, true},
		{int8.Conv, int8.Shape{H: 5, W: 5, C: 96}, 112, 1, 1, 0, true},
		{int8.Conv, int8.Shape{H: 5, W: 5, C: 96}, 96, 3, 2, 1, false},
	} {
		t.Run(fmt.Sprintf("%v %v to %d, %dx%d/%d+%d, add %v", c.kind, c.in, c.channels, c.kernel, c.kernel, c.stride, c.pad, c.add), func(t *testing.T) {
			out := int8.Shape{H: (c.in.H+2*c.pad-c.kernel)/c.stride + 1, W: (c.in.W+2*c.pad-c.kernel)/c.stride + 1, C: c.channels}
			l := convolution(r, c.kind, c.in, out, c.kernel, c.stride, c.pad)
			inputs := []int8.Shape{c.in}
			if c.add {
				inputs = append(inputs, out)
			}
			read, made := run(t, r, l, out, inputs...)
			var add *pixels
			if c.add {
				add = read[1]
			}
			compare(t, made, reference(&l, read[0], add, out))
		})
	}
}

func TestDilatedLayersEqualTheReference(t *testing.T) {
	processor(t)
	r := rand.New(rand.NewPCG(7, 8))
	for _, kind := range []int8.Kind{int8.Conv, int8.Depthwise} {
		in := int8.Shape{H: 11, W: 10, C: 16}
		l := convolution(r, kind, in, in, 3, 1, 2)
		l.Dilation = [2]int{2, 2}
		read, made := run(t, r, l, in, in)
		compare(t, made, reference(&l, read[0], nil, in))
	}
}

// What is filled up behind and below a picture may be more than above and before it.
func TestUnevenPaddingEqualsTheReference(t *testing.T) {
	processor(t)
	r := rand.New(rand.NewPCG(9, 10))
	for _, kind := range []int8.Kind{int8.Conv, int8.Depthwise} {
		for _, c := range []int{16, 32, 64} {
			for _, stride := range []int{1, 2} {
				for more := -1; more <= 2; more++ {
					in := int8.Shape{H: 8, W: 7, C: c}
					out := int8.Shape{H: (in.H-1)/stride + 1 + more, W: (in.W-1)/stride + 1 + more, C: c}
					l := convolution(r, kind, in, out, 3, stride, 1)
					if (out.W-1)*stride-1 >= in.W {
						continue // no kernel reads beside the picture alone
					}
					read, made := run(t, r, l, out, in)
					compare(t, made, reference(&l, read[0], nil, out))
				}
			}
		}
	}
}

func TestPointwiseLayersEqualTheReference(t *testing.T) {
	processor(t)
	r := rand.New(rand.NewPCG(3, 4))
	for _, c := range []int{5, 16, 40, 64} {
		for _, block := range []int{1, 2, 3} {
			in := int8.Shape{H: 6, W: 12, C: c}
			for kind, out := range map[int8.Kind]int8.Shape{
				int8.Max:    {H: 6 / block, W: 12 / block, C: c},
				int8.Repeat: {H: 6 * block, W: 12 * block, C: c},
			} {
				l := int8.Layer{Name: "layer", Kind: kind, Shape: in, Block: block}
				read, made := run(t, r, l, out, in)
				compare(t, made, reference(&l, read[0], nil, out))
			}
			l := int8.Layer{Name: "sum", Kind: int8.Sum, Shape: in, A: 0.3, B: 0.8, Fixed: 5.5}
			read, made := run(t, r, l, in, in, in)
			compare(t, made, reference(&l, read[0], read[1], in))
		}
	}
}

func TestQuantizeEqualsTheReference(t *testing.T) {
	processor(t)
	r := rand.New(rand.NewPCG(5, 6))
	for _, block := range []int{1, 2} {
		for _, w := range []int{2, 6, 16, 30, 32, 34, 66, 112} {
			for _, planes := range []int{1, 3} {
				quantizeOnce(t, r, int8.Shape{H: 2 * block, W: w * block, C: planes}, block)
			}
		}
	}
}

func quantizeOnce(t *testing.T, r *rand.Rand, in int8.Shape, block int) {
	t.Helper()
	const scale, zero = 0.0173, 113
	out := int8.Shape{H: in.H / block, W: in.W / block, C: in.C * block * block}
	src, dst := make([]float32, in.Elements()), make([]float32, out.Elements())
	for i := range src {
		src[i] = float32(r.NormFloat64())
	}
	src[0], src[1], src[2] = float32(math.Inf(1)), float32(math.Inf(-1)), 1e30
	var b builder
	number := b.tensor(out)
	b.add(int8.Layer{Name: "in", Kind: int8.Quantize, In: b.float(src), Add: int8.None, Out: number, Shape: in, Block: block, Scale: scale, OutZero: zero})
	b.add(int8.Layer{Name: "out", Kind: int8.LookUp, In: number, Add: int8.None, Out: b.float(dst), Shape: out, Table: &identity, Planes: true})
	b.run(t)
	for c := range out.C {
		dy, dx, plane := c/in.C/block, c/in.C%block, c%in.C
		for y := range out.H {
			for x := range out.W {
				v := src[(plane*in.H+y*block+dy)*in.W+x*block+dx]
				want := keep(round(min(max(v/scale, -1024), 1024)) + zero)
				if have := dst[(c*out.H+y)*out.W+x]; have != float32(want) {
					t.Fatalf("%v by %d: channel %d of pixel %d, %d is %g, not %d", in, block, c, y, x, have, want)
				}
			}
		}
	}
}

func compare(t *testing.T, have, want *pixels) {
	t.Helper()
	spread := map[uint8]bool{}
	for i := range want.values {
		spread[want.values[i]] = true
		if have.values[i] != want.values[i] {
			t.Fatalf("value %d is %d, not %d", i, have.values[i], want.values[i])
		}
	}
	if len(want.values) > 64 && len(spread) < 8 {
		t.Fatalf("only %d different values: this proves nothing", len(spread))
	}
}
