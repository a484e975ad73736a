package vnni_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/quant"
	"vigil/infer/quant/onnx"
	"vigil/infer/vnni"
)

// below counts what it loads and changes what its engines do.
type below struct {
	infer.Runtime
	loads int
	wrap  func(infer.IO) infer.IO
}

func (b *below) Close() error { return nil }

func (b *below) Load(ctx context.Context, data []byte, in, out []infer.Tensor) (infer.Engine, error) {
	b.loads++
	e, err := b.Runtime.Load(ctx, data, in, out)
	if err != nil || b.wrap == nil {
		return e, err
	}
	return &wrapped{e, b.wrap}, nil
}

type wrapped struct {
	infer.Engine
	wrap func(infer.IO) infer.IO
}

func (w *wrapped) NewIO() (infer.IO, error) {
	io, err := w.Engine.NewIO()
	if err != nil {
		return nil, err
	}
	return w.wrap(io), nil
}

// changed runs what it stands for, then does something else.
type changed struct {
	infer.IO
	after func(infer.IO, error) error
}

func (c *changed) Run(ctx context.Context) error { return c.after(c.IO, c.IO.Run(ctx)) }

func after(f func(infer.IO, error) error) func(infer.IO) infer.IO {
	return func(io infer.IO) infer.IO { return &changed{io, f} }
}

// once answers by the first run's answer for ever, at once.
type once struct {
	infer.IO
	done bool
}

func (o *once) Run(ctx context.Context) error {
	if o.done {
		return nil
	}
	o.done = true
	return o.IO.Run(ctx)
}

func TestTheKernelsTakeOverWhereTheyAgreeAndAreFaster(t *testing.T) {
	processor(t)
	rt := infertest.Runtime(t)
	slow := after(func(_ infer.IO, err error) error { time.Sleep(20 * time.Millisecond); return err })
	for name, c := range map[string]struct {
		wrap   func(infer.IO) infer.IO
		ours   bool
		reason string
		fail   string
	}{
		"faster":    {wrap: slow, ours: true, reason: "times as fast"},
		"slower":    {wrap: func(io infer.IO) infer.IO { return &once{IO: io} }, reason: "no faster"},
		"disagrees": {wrap: after(func(io infer.IO, err error) error { io.Output(1)[7] += 1000; return err }), reason: "do not agree with it on maps"},
		"fails":     {wrap: after(func(infer.IO, error) error { return errors.New("no luck") }), fail: "no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			m := everything(t, rt)
			b := &below{Runtime: rt, wrap: c.wrap}
			over := vnni.Over(b)
			for range 2 {
				e, err := over.Load(t.Context(), m.data, m.in, m.out)
				if c.fail != "" {
					if err == nil || !strings.Contains(err.Error(), c.fail) {
						t.Fatalf("error %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := e.(infer.Explained).Kernels(); !strings.Contains(got, c.reason) {
					t.Errorf("reason %q", got)
				}
				answers(t, m, e, infertest.NewNoise(1, 2), 0)
				closed(t, e)
			}
			if want := map[bool]int{true: 1, false: 2}[c.ours]; b.loads != want {
				t.Errorf("the runtime below loaded the model %d times, not %d", b.loads, want)
			}
			if err := over.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAFloatModelIsLeftToTheRuntimeBelow(t *testing.T) {
	processor(t)
	rt := infertest.Runtime(t)
	over := vnni.Over(&below{Runtime: rt})
	g := &graph{m: &onnx.Model{Opset: 13, Inits: map[string]*onnx.Tensor{}}}
	g.conv("y", "x", 3, 8, 1, nil)
	m := model{in: []infer.Tensor{tensor("x", 1, 3, 8, 8)}, out: []infer.Tensor{tensor("y", 1, 8, 8, 8)}}
	g.m.Inputs, g.m.Outputs = values(m.in), values(m.out)
	data, err := g.m.Write()
	if err != nil {
		t.Fatal(err)
	}
	m.data = data
	e, err := over.Load(t.Context(), m.data, m.in, m.out)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, e)
	if got := e.(infer.Explained).Kernels(); !strings.Contains(got, "is in float") || !strings.HasPrefix(got, rt.Name()) {
		t.Errorf("reason %q", got)
	}
	answers(t, m, e, infertest.NewNoise(1, 2), 0)
	if _, err := over.Load(t.Context(), m.data[:100], m.in, m.out); err == nil {
		t.Error("half a file was loaded")
	}
}

// What the kernels do not compute is refused by name, never computed otherwise.
func TestModelsThatAreNotTaken(t *testing.T) {
	processor(t)
	rt := infertest.Runtime(t)
	good := everything(t, rt)
	first := func(m *onnx.Model, op string) *onnx.Node {
		for _, n := range m.Nodes {
			if n.Op == op && m.Const(n.Input(0)) == nil {
				return n
			}
		}
		t.Fatalf("no %s", op)
		return nil
	}
	for name, c := range map[string]struct {
		change func(m *onnx.Model)
		say    string
	}{
		"another operator": {func(m *onnx.Model) { first(m, "Sigmoid").Op = "Tanh" }, "Tanh"},
		"another domain": {func(m *onnx.Model) {
			first(m, "Sigmoid").Domain, m.Domains = "elsewhere", map[string]int64{"elsewhere": 1}
		}, "Sigmoid"},
		"padding chosen by size": {func(m *onnx.Model) { first(m, "Conv").Attrs.SetText("auto_pad", "SAME_UPPER") }, "explicit padding"},
		"groups":                 {func(m *onnx.Model) { first(m, "Conv").Attrs.SetInt("group", 2) }, "2 groups"},
		"a pool that overlaps":   {func(m *onnx.Model) { first(m, "MaxPool").Attrs.SetInts("strides", 1, 1) }, "side by side"},
		"interpolation":          {func(m *onnx.Model) { first(m, "Resize").Attrs.SetText("mode", "linear") }, "nearest"},
		"other pixels":           {func(m *onnx.Model) { first(m, "Resize").Attrs.SetText("nearest_mode", "ceil") }, "ceil"},
		"another order":          {func(m *onnx.Model) { first(m, "Transpose").Attrs.SetInts("perm", 0, 3, 2, 1) }, "planes to pixels"},
		"a float layer": {func(m *onnx.Model) {
			n := first(m, "Conv")
			m.ReplaceUses(n.Input(0), "x")
		}, "not of 8 bits"},
		"another step behind": {func(m *onnx.Model) {
			n := first(m, "DequantizeLinear")
			m.Inits["other"] = onnx.FloatTensor([]float32{7})
			n.Inputs[1] = "other"
		}, "its step"},
		"no step": {func(m *onnx.Model) {
			n := first(m, "QuantizeLinear")
			m.Inits["other"] = onnx.FloatTensor([]float32{0})
			n.Inputs[1] = "other"
		}, "step 0"},
		"signed activations": {func(m *onnx.Model) {
			n := first(m, "QuantizeLinear")
			m.Inits["other"] = onnx.IntTensor(onnx.Int8, []int64{0})
			n.Inputs[2] = "other"
		}, "uint8"},
		"two steps for one layer": {func(m *onnx.Model) {
			n := first(m, "Conv")
			m.Inits["half"] = onnx.FloatTensor([]float32{0.5})
			m.Inits["none"] = onnx.IntTensor(onnx.Uint8, []int64{0})
			m.Nodes = append(m.Nodes, &onnx.Node{Name: "again", Op: "QuantizeLinear", Inputs: []string{n.Outputs[0], "half", "none"}, Outputs: []string{"again"}})
		}, "read by others"},
		"blocks of three": {func(m *onnx.Model) { first(m, "SpaceToDepth").Attrs.SetInt("blocksize", 3) }, "blocks of two"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := onnx.Read(good.data)
			if err != nil {
				t.Fatal(err)
			}
			c.change(m)
			data, err := m.Write()
			if err != nil {
				t.Fatal(err)
			}
			_, err = vnni.Load(data, good.in, good.out)
			if !errors.Is(err, vnni.ErrGraph) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("error %v", err)
			}
		})
	}
	batch := []infer.Tensor{tensor("x", 2, 3, 24, 32)}
	if _, err := vnni.Load(good.data, batch, good.out); !errors.Is(err, vnni.ErrGraph) {
		t.Errorf("two pictures at once: %v", err)
	}
	other := []infer.Tensor{tensor("chances", 1, 7), good.out[1]}
	if _, err := vnni.Load(good.data, good.in, other); !errors.Is(err, vnni.ErrGraph) {
		t.Errorf("an output of another size: %v", err)
	}
}

// FuzzLoad: however a graph is changed, it is refused or it runs. Three bytes are a change: of which node, what, and to what.
func FuzzLoad(f *testing.F) {
	processor(f)
	m := everything(f, infertest.Runtime(f))
	f.Add([]byte{}, uint8(24), uint8(32))
	f.Add([]byte{40, 0, 9, 70, 3, 2}, uint8(12), uint8(8))
	f.Add([]byte{60, 2, 30, 61, 4, 140, 62, 5, 17}, uint8(2), uint8(64))
	f.Fuzz(func(t *testing.T, changes []byte, h, w uint8) {
		if h < 1 || w < 1 || h > 64 || w > 64 || len(changes) > 30 {
			return
		}
		data, ok := rewritten(t, m, changes)
		if !ok {
			return
		}
		in := []infer.Tensor{tensor("x", 1, 3, int64(h), int64(w))}
		for _, out := range [][]infer.Tensor{m.out, {tensor("chances", 1, int64(h/2)*int64(w/2), 5), tensor("maps", 1, 40, int64(h/2), int64(w/2))}} {
			e, err := vnni.Load(data, in, out)
			if err != nil {
				continue
			}
			answers(t, model{data, in, out}, e, infertest.NewNoise(1, 2), 0)
			closed(t, e)
		}
	})
}

// FuzzAnswers: what is taken is answered as ONNX Runtime answers it, or nearly: of a graph that is changed it fuses less, and
// rounds otherwise.
func FuzzAnswers(f *testing.F) {
	processor(f)
	rt := infertest.Runtime(f)
	m := everything(f, rt)
	f.Add([]byte{40, 0, 9, 70, 3, 2})
	f.Add([]byte{60, 2, 30, 61, 4, 140, 62, 5, 17})
	f.Fuzz(func(t *testing.T, changes []byte) {
		if len(changes) > 15 {
			return
		}
		data, ok := rewritten(t, m, changes)
		if !ok {
			return
		}
		ours, err := vnni.Load(data, m.in, m.out)
		if err != nil {
			return
		}
		defer closed(t, ours)
		theirs, err := rt.Load(t.Context(), data, m.in, m.out)
		if err != nil {
			return
		}
		defer closed(t, theirs)
		want, err := run(t, m, theirs, infertest.NewNoise(1, 2), 0)
		if err != nil {
			return
		}
		have := answers(t, m, ours, infertest.NewNoise(1, 2), 0)
		for i := range want {
			if c := quant.Cosine(have[i], want[i]); !(c > 0.98) {
				t.Errorf("%s: cosine %.4f", m.out[i].Name, c)
			}
		}
	})
}

// rewritten is the model with changes, false if it cannot be written then.
func rewritten(t *testing.T, m model, changes []byte) (data []byte, ok bool) {
	t.Helper()
	g, err := onnx.Read(m.data)
	if err != nil {
		t.Fatal(err)
	}
	for ; len(changes) >= 3; changes = changes[3:] {
		change(g, changes)
	}
	data, err = g.Write()
	return data, err == nil
}

func change(g *onnx.Model, what []byte) {
	n, to := g.Nodes[int(what[0])%len(g.Nodes)], int64(what[2])
	switch what[1] % 6 {
	case 0:
		for _, name := range []string{"pads", "strides", "dilations", "kernel_shape", "perm"} {
			if list := n.Attrs.Ints(name); len(list) > 0 && int64(len(name))%2 == to%2 {
				list[to%int64(len(list))] = to/4 - 2
				n.Attrs.SetInts(name, list...)
			}
		}
	case 1:
		for _, name := range []string{"group", "blocksize", "axis"} {
			if n.Attrs.Has(name) {
				n.Attrs.SetInt(name, to)
			}
		}
	case 2:
		other := g.Nodes[int(to)%len(g.Nodes)]
		n.Inputs[int(to)%len(n.Inputs)] = other.Outputs[0]
	case 3:
		n.Attrs.Remove("pads", "strides", "dilations", "mode")
	case 4:
		if t := g.Const(n.Input(1)); t != nil && t.Type == onnx.Float {
			list, _ := t.Floats()
			list[int(to)%len(list)] = float32(math.Ldexp(1, int(to)-128))
			g.Inits[n.Input(1)] = onnx.FloatTensor(list, t.Dims...)
		}
	case 5:
		if t := g.Const(n.Input(0)); t != nil && len(t.Dims) == 4 {
			dims := slices.Clone(t.Dims)
			i, j := to%4, to/4%4
			dims[i], dims[j] = dims[j], dims[i]
			g.Inits[n.Input(0)] = &onnx.Tensor{Type: t.Type, Dims: dims, Data: t.Data}
		}
	}
}
