package quant

import (
	"slices"

	"vigil/infer/quant/onnx"
)

// mostBlockChannels bounds the channels of a convolution that foldStride rewrites: with more, its kernel of 8 bits works
// well as it is.
const mostBlockChannels = 4

// foldStride gives convolutions of stride 2 over a picture's few channels the same sums in another shape: SpaceToDepth
// makes each 2 x 2 pixels one pixel of four times the channels, over which the convolution has stride 1 and a smaller
// kernel. ONNX Runtime gathers the input of such a layer one kernel position at a time; three bytes at each of nine
// positions cost more than the sums. Weights that the old kernel did not have are 0, so the sums are the same bit for bit.
// (The rewriting is the well-known space-to-depth trick for first layers.)
func (w *writer) foldStride(copyOf map[*onnx.Node]*onnx.Node) {
	for _, n := range w.p.m.Nodes {
		if n.Op != "Conv" || w.p.chosen[n] != kindWeights {
			continue
		}
		if b, ok := w.blocksOf(n); ok {
			w.foldBlocks(n, copyOf[n], b)
		}
	}
}

// blocks is a convolution in one direction, rows or columns, over blocks of two.
type blocks struct {
	kernel, before, after int64 // size and padding, in blocks
	first                 int64 // distance of the first weight from the kernel's start, in pixels: 0 or 1
}

// inBlocks says what a convolution with stride 2 over an even number of pixels is over blocks of two; false if it is none.
func inBlocks(size, out, kernel, before int64) (b blocks, ok bool) {
	b.before = (before + 1) / 2
	b.first = 2*b.before - before
	b.kernel = (b.first + kernel + 1) / 2
	b.after = out - 1 + b.kernel - size/2 - b.before
	return b, size%2 == 0 && out > 0 && b.after >= 0 && b.before < b.kernel && b.after < b.kernel
}

// blocksOf says what a node is over blocks; false if it is to stay as it is.
func (w *writer) blocksOf(n *onnx.Node) (b [2]blocks, ok bool) {
	in, out, dims := w.c.shapes[n.Input(0)], w.c.shapes[n.Outputs[0]], w.p.m.Const(n.Input(1)).Dims
	pads, strides, dilations := n.Attrs.Ints("pads"), n.Attrs.Ints("strides"), n.Attrs.Ints("dilations")
	switch {
	case len(in) != 4 || len(out) != 4 || len(dims) != 4 || dims[1] > mostBlockChannels || n.Attrs.Int("group", 1) != 1,
		!slices.Equal(strides, []int64{2, 2}),
		len(dilations) > 0 && !slices.Equal(dilations, []int64{1, 1}),
		!slices.Contains([]string{"NOTSET", "VALID"}, n.Attrs.Text("auto_pad", "NOTSET")):
		return b, false
	case len(pads) == 0:
		pads = make([]int64, 4)
	}
	for d := range b {
		if b[d], ok = inBlocks(in[2+d], out[2+d], dims[2+d], pads[d]); !ok {
			return b, false
		}
	}
	return b, true
}

// foldBlocks rewrites one convolution, if nobody else reads its quantised input.
func (w *writer) foldBlocks(n, to *onnx.Node, b [2]blocks) {
	makers, readers := w.m.Producers(), w.m.Consumers()
	dq, params := makers[to.Input(0)], makers[to.Input(1)]
	if dq == nil || dq.Op != "DequantizeLinear" || len(readers[dq.Outputs[0]]) != 1 {
		return
	}
	q := makers[dq.Input(0)]
	if q == nil || q.Op != "QuantizeLinear" || len(readers[q.Outputs[0]]) != 1 || w.m.IsOutput(dq.Outputs[0]) {
		return
	}
	l := w.layers[n].w
	dims := []int64{l.dims[0], 4 * l.dims[1], b[0].kernel, b[1].kernel}
	total, _ := onnx.Elements(dims)
	values := make([]int64, total)
	i := 0
	for o := range l.dims[0] {
		for c := range l.dims[1] {
			for y := b[0].first; y < b[0].first+l.dims[2]; y++ {
				for x := b[1].first; x < b[1].first+l.dims[3]; x++ {
					channel := (y%2*2+x%2)*l.dims[1] + c // as SpaceToDepth lays them
					values[((o*dims[1]+channel)*dims[2]+y/2)*dims[3]+x/2] = l.values[i]
					i++
				}
			}
		}
	}
	w.m.Inits[params.Inputs[0]] = onnx.IntTensor(onnx.Int8, values, dims...)
	to.Attrs.SetInts("kernel_shape", dims[2:]...)
	to.Attrs.SetInts("strides", 1, 1)
	to.Attrs.SetInts("pads", b[0].before, b[1].before, b[0].after, b[1].after)
	to.Attrs.Remove("auto_pad", "dilations")
	s := &onnx.Node{Name: n.Name + ".blocks", Op: "SpaceToDepth", Inputs: []string{q.Inputs[0]}, Outputs: []string{w.m.Fresh(n.Name + ".input.blocks")}}
	s.Attrs.SetInt("blocksize", 2)
	q.Inputs[0] = s.Outputs[0]
	w.m.Nodes = append(w.m.Nodes, s)
}
