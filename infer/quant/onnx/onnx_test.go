package onnx

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"vigil/infer/quant/onnx/pb"
)

// small is a valid model: y = relu(x*w), z = reshape(y).
func small(t testing.TB) *Model {
	t.Helper()
	m := &Model{
		Opset: 13, Name: "small",
		Nodes: []*Node{
			{Name: "mul", Op: "Mul", Inputs: []string{"x", "w"}, Outputs: []string{"p"}},
			{Name: "relu", Op: "Relu", Inputs: []string{"p"}, Outputs: []string{"y"}},
			{Name: "flat", Op: "Reshape", Inputs: []string{"y", "shape"}, Outputs: []string{"z"}},
		},
		Inits:    map[string]*Tensor{"w": FloatTensor([]float32{1, -2, 3}, 3), "shape": IntTensor(Int64, []int64{1, -1}, 2)},
		Inputs:   []Value{{Name: "x", Type: Float, Dims: Dims(1, 2, 3)}},
		Outputs:  []Value{{Name: "z", Type: Float, Dims: []Dim{{Size: 1}, {Size: -1, Param: "n"}}}},
		Metadata: map[string]string{"author": "a"},
	}
	if err := m.Sort(); err != nil {
		t.Fatal(err)
	}
	return m
}

func encoded(t testing.TB, m *Model) []byte {
	t.Helper()
	data, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// schema is the message of a small model, for tests that break it.
func schema(t testing.TB) *pb.ModelProto {
	t.Helper()
	var p pb.ModelProto
	if err := proto.Unmarshal(encoded(t, small(t)), &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

func TestReadGivesWhatWasWritten(t *testing.T) {
	data := encoded(t, small(t))
	m, err := Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if again := encoded(t, m); !bytes.Equal(again, data) {
		t.Error("written again it differs")
	}
	if m.Opset != 13 || len(m.Nodes) != 3 || m.Metadata["author"] != "a" || !slices.Equal(m.Inputs[0].Shape(), []int64{1, 2, 3}) {
		t.Errorf("%+v", m)
	}
	if d := m.Outputs[0].Dims; d[1].Size != -1 || d[1].Param != "n" {
		t.Errorf("dynamic axis became %+v", d)
	}
	w, err := m.Inits["w"].Floats()
	if err != nil || !slices.Equal(w, []float32{1, -2, 3}) {
		t.Errorf("weights %v, %v", w, err)
	}
}

func TestNodesAreSorted(t *testing.T) {
	p := schema(t)
	slices.Reverse(p.Graph.Node)
	data, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Nodes[0].Name != "mul" || m.Nodes[2].Name != "flat" {
		t.Errorf("order %v", m.Nodes)
	}
}

func TestReadRefuses(t *testing.T) {
	i64 := func(v ...int64) []int64 { return v }
	for _, c := range []struct {
		name string
		do   func(p *pb.ModelProto)
		want []string
	}{
		{"no graph", func(p *pb.ModelProto) { p.Graph = nil }, []string{"no graph"}},
		{"opset too old", func(p *pb.ModelProto) { p.OpsetImport[0].Version = proto.Int64(6) }, []string{"opset 6", "export"}},
		{"opset too new", func(p *pb.ModelProto) { p.OpsetImport[0].Version = proto.Int64(99) }, []string{"opset 99", "export"}},
		{"no opset", func(p *pb.ModelProto) { p.OpsetImport = nil }, []string{"opset 0"}},
		{"cycle", func(p *pb.ModelProto) { p.Graph.Node[0].Input[1] = "y" }, []string{`"mul"`, "cycle"}},
		{"missing initialiser", func(p *pb.ModelProto) {
			p.Graph.Initializer = slices.DeleteFunc(p.Graph.Initializer, func(t *pb.TensorProto) bool { return t.GetName() == "w" })
		}, []string{`"mul"`, `"w"`, "lacks a weight"}},
		{"duplicate output", func(p *pb.ModelProto) { p.Graph.Node[1].Output[0] = "p" }, []string{`"p"`, `"mul"`, `"relu"`}},
		{"output over an input", func(p *pb.ModelProto) { p.Graph.Node[1].Output[0] = "x" }, []string{`"x"`, `"relu"`}},
		{"undefined output", func(p *pb.ModelProto) { p.Graph.Output[0].Name = proto.String("q") }, []string{`"q"`, "no node"}},
		{"huge initialiser", func(p *pb.ModelProto) { p.Graph.Initializer[1].Dims = i64(1<<20, 1<<20) }, []string{`"w"`, "bytes"}},
		{"overflowing initialiser", func(p *pb.ModelProto) { p.Graph.Initializer[1].Dims = i64(1<<62, 4, 1<<62) }, []string{`"w"`, "bytes"}},
		{"negative initialiser", func(p *pb.ModelProto) { p.Graph.Initializer[1].Dims = i64(-3) }, []string{`"w"`, "negative"}},
		{"initialiser too short", func(p *pb.ModelProto) { p.Graph.Initializer[1].Dims = i64(4) }, []string{`"w"`, "damaged"}},
		{"huge input", func(p *pb.ModelProto) {
			p.Graph.Input[0].Type.GetTensorType().Shape.Dim[1].Value = &pb.TensorShapeProto_Dimension_DimValue{DimValue: 1 << 31}
		}, []string{`"x"`, "bytes"}},
		{"external data", func(p *pb.ModelProto) { p.Graph.Initializer[1].DataLocation = pb.TensorProto_EXTERNAL.Enum() }, []string{`"w"`, "another file"}},
		{"strings", func(p *pb.ModelProto) { p.Graph.Initializer[1].DataType = proto.Int32(8) }, []string{`"w"`, "STRING"}},
		{"subgraph", func(p *pb.ModelProto) {
			p.Graph.Node[1].Attribute = []*pb.AttributeProto{{Name: proto.String("body"), G: &pb.GraphProto{}}}
		}, []string{`"relu"`, "subgraph", "unrolled"}},
		{"functions", func(p *pb.ModelProto) { p.Functions = []*pb.FunctionProto{{Name: proto.String("f")}} }, []string{`"f"`, "inline"}},
		{"sparse", func(p *pb.ModelProto) { p.Graph.SparseInitializer = []*pb.SparseTensorProto{{}} }, []string{"sparse"}},
		{"training", func(p *pb.ModelProto) { p.TrainingInfo = []*pb.TrainingInfoProto{{}} }, []string{"training"}},
		{"initialiser twice", func(p *pb.ModelProto) { p.Graph.Initializer = append(p.Graph.Initializer, p.Graph.Initializer[0]) }, []string{"name of its own"}},
		{"input twice", func(p *pb.ModelProto) { p.Graph.Input = append(p.Graph.Input, p.Graph.Input[0]) }, []string{`"x"`, "twice"}},
		{"no inputs", func(p *pb.ModelProto) { p.Graph.Input = nil }, []string{"0 inputs"}},
		{"unknown domain", func(p *pb.ModelProto) { p.Graph.Node[1].Domain = proto.String("com.example") }, []string{`"relu"`, "com.example"}},
		{"no operator", func(p *pb.ModelProto) { p.Graph.Node[1].OpType = nil }, []string{"no operator"}},
		{"attribute twice", func(p *pb.ModelProto) {
			a := &pb.AttributeProto{Name: proto.String("k")}
			p.Graph.Node[1].Attribute = []*pb.AttributeProto{a, a}
		}, []string{`"relu"`, `"k"`}},
		{"sequence input", func(p *pb.ModelProto) { p.Graph.Input[0].Type = &pb.TypeProto{Value: &pb.TypeProto_SequenceType{}} }, []string{`"x"`, "tensor"}},
	} {
		p := schema(t)
		c.do(p)
		data, err := proto.Marshal(p)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_, err = Read(data)
		if !errors.Is(err, ErrModel) {
			t.Errorf("%s: %v, want a refusal", c.name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want a word about %q", c.name, err, w)
			}
		}
	}
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("not a model"), "cut off": encoded(t, small(t))[:40]} {
		if _, err := Read(data); !errors.Is(err, ErrModel) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// old is a model of one node in an old opset.
func old(opset int64, n *Node, inits map[string]*Tensor) *Model {
	if inits == nil {
		inits = map[string]*Tensor{}
	}
	return &Model{
		Opset: opset, Nodes: []*Node{n}, Inits: inits,
		Inputs: []Value{{Name: "x", Type: Float, Dims: Dims(1, 4, 4)}}, Outputs: []Value{{Name: "y", Type: Float}},
	}
}

func TestUpgrade(t *testing.T) {
	node := func(op string, attrs func(*Attrs), more ...string) *Node {
		n := &Node{Name: "n", Op: op, Inputs: append([]string{"x"}, more...), Outputs: []string{"y"}}
		if attrs != nil {
			attrs(&n.Attrs)
		}
		return n
	}
	for _, c := range []struct {
		name   string
		m      *Model
		op     string
		inputs [][]int64 // constant inputs behind the first, nil for none
	}{
		{"squeeze", old(11, node("Squeeze", func(a *Attrs) { a.SetInts("axes", 0) }), nil), "Squeeze", [][]int64{{0}}},
		{"unsqueeze", old(11, node("Unsqueeze", func(a *Attrs) { a.SetInts("axes", 0, 1) }), nil), "Unsqueeze", [][]int64{{0, 1}}},
		{"reducesum", old(9, node("ReduceSum", func(a *Attrs) { a.SetInts("axes", 2) }), nil), "ReduceSum", [][]int64{{2}}},
		{"slice", old(9, node("Slice", func(a *Attrs) { a.SetInts("starts", 1); a.SetInts("ends", 3); a.SetInts("axes", 2) }), nil), "Slice", [][]int64{{1}, {3}, {2}}},
		{"split", old(11, node("Split", func(a *Attrs) { a.SetInts("split", 4) }), nil), "Split", [][]int64{{4}}},
		{"pad", old(9, node("Pad", func(a *Attrs) { a.SetInts("pads", 0, 0, 0, 0, 1, 1) }), nil), "Pad", [][]int64{{0, 0, 0, 0, 1, 1}}},
		{"topk", old(9, node("TopK", func(a *Attrs) { a.SetInt("k", 2) }), nil), "TopK", [][]int64{{2}}},
		{"dropout", old(9, node("Dropout", func(a *Attrs) { a.SetFloat("ratio", 0.5) }), nil), "Identity", nil},
	} {
		if err := c.m.Upgrade(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		n := c.m.Nodes[0]
		if c.m.Opset != QuantOpset || n.Op != c.op || len(n.Inputs) != 1+len(c.inputs) || len(n.Attrs) != 0 {
			t.Errorf("%s became %v with inputs %v and attributes %v, opset %d", c.name, n, n.Inputs, n.Attrs, c.m.Opset)
			continue
		}
		for i, want := range c.inputs {
			if got, err := c.m.Const(n.Inputs[i+1]).Ints(); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: input %d is %v (%v), want %v", c.name, i+1, got, err, want)
			}
		}
	}
}

func TestUpgradeOfClipResizeAndSoftmax(t *testing.T) {
	clip := &Node{Name: "n", Op: "Clip", Inputs: []string{"x"}, Outputs: []string{"y"}}
	clip.Attrs.SetFloat("max", 6)
	m := old(9, clip, nil)
	if err := m.Upgrade(); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Const(clip.Input(2)).Floats(); err != nil || v[0] != 6 || clip.Input(1) != "" {
		t.Errorf("clip: %v, %v, inputs %q", v, err, clip.Inputs)
	}
	up := &Node{Name: "n", Op: "Upsample", Inputs: []string{"x", "s"}, Outputs: []string{"y"}}
	m = old(9, up, map[string]*Tensor{"s": FloatTensor([]float32{1, 2, 2}, 3)})
	if err := m.Upgrade(); err != nil {
		t.Fatal(err)
	}
	if up.Op != "Resize" || up.Input(2) != "s" || up.Attrs.Text("coordinate_transformation_mode", "") != "asymmetric" || up.Attrs.Text("nearest_mode", "") != "floor" {
		t.Errorf("upsample: %v %v %v", up, up.Inputs, up.Attrs)
	}
	for axis, nodes := range map[int64]int{2: 1, -1: 1, 1: 4} {
		soft := &Node{Name: "n", Op: "Softmax", Inputs: []string{"x"}, Outputs: []string{"y"}}
		soft.Attrs.SetInt("axis", axis)
		m = old(11, soft, nil)
		if err := m.Upgrade(); err != nil {
			t.Fatal(err)
		}
		if len(m.Nodes) != nodes || soft.Attrs.Int("axis", 0) != -1 {
			t.Errorf("softmax along %d: %d nodes, want %d", axis, len(m.Nodes), nodes)
		}
	}
}

func TestUpgradeRefusesByName(t *testing.T) {
	for op, n := range map[string]*Node{
		"NonMaxSuppression":  {Name: "nms", Op: "NonMaxSuppression", Inputs: []string{"x"}, Outputs: []string{"y"}},
		"BatchNormalization": {Name: "bn", Op: "BatchNormalization", Inputs: []string{"x"}, Outputs: []string{"y", "mean"}},
		"Dropout":            {Name: "drop", Op: "Dropout", Inputs: []string{"x"}, Outputs: []string{"y", "mask"}},
	} {
		err := old(10, n, nil).Upgrade()
		if !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), n.Name) || !strings.Contains(err.Error(), op) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestRemoveDead(t *testing.T) {
	m := small(t)
	m.Nodes = append(m.Nodes, &Node{Name: "dead", Op: "Add", Inputs: []string{"p", "unused"}, Outputs: []string{"q"}})
	m.Inits["unused"] = FloatTensor([]float32{1})
	if n := m.RemoveDead(); n != 1 || m.Inits["unused"] != nil || len(m.Nodes) != 3 || m.Inits["w"] == nil {
		t.Errorf("removed %d, left %v and %v", n, m.Nodes, m.Inits)
	}
}

func TestSetBatchAndPin(t *testing.T) {
	m := small(t)
	if err := m.SetBatch(4); err != nil {
		t.Fatal(err)
	}
	shape, err := m.Const(m.Nodes[2].Input(1)).Ints()
	if err != nil || !slices.Equal(shape, []int64{4, -1}) || m.Inputs[0].Dims[0].Size != 4 {
		t.Errorf("shape %v (%v), input %v", shape, err, m.Inputs[0])
	}
	if err := m.SetBatch(8); !errors.Is(err, ErrModel) {
		t.Errorf("a second batch: %v", err)
	}
	m = small(t)
	for _, bad := range [][]int64{{1, 2}, {1, 2, 4}, {1, 2, -3}} {
		if err := m.Pin("x", bad); !errors.Is(err, ErrModel) {
			t.Errorf("shape %v: %v", bad, err)
		}
	}
	if err := m.Pin("q", []int64{1}); err == nil || !strings.Contains(err.Error(), "[x]") {
		t.Errorf("unknown input: %v, want the names there are", err)
	}
}

// skeleton is a real model without its large weights: the mutator would spend its time on them.
func skeleton(f *testing.F, name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	var p pb.ModelProto
	if err := proto.Unmarshal(data, &p); err != nil {
		f.Fatal(err)
	}
	for _, t := range p.Graph.Initializer {
		if len(t.RawData)+4*len(t.FloatData) > 256 {
			t.Dims, t.RawData, t.FloatData = []int64{0}, nil, nil
		}
	}
	for _, n := range p.Graph.Node {
		for _, a := range n.Attribute {
			if len(a.GetT().GetRawData()) > 256 {
				a.T.Dims, a.T.RawData = []int64{0}, nil
			}
		}
	}
	if data, err = proto.Marshal(&p); err != nil {
		f.Fatal(err)
	}
	if _, err := Read(data); err != nil {
		f.Fatalf("%s without weights: %v", name, err)
	}
	return data
}

func FuzzReadONNX(f *testing.F) {
	f.Add(encoded(f, small(f)))
	f.Add(encoded(f, old(11, &Node{Name: "n", Op: "Relu", Inputs: []string{"x"}, Outputs: []string{"y"}}, nil)))
	f.Add([]byte{})
	dir := os.Getenv("VIGIL_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "data")
	}
	files, err := filepath.Glob(filepath.Join(dir, "models", "*.onnx"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		f.Add(skeleton(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(data)
		if err != nil {
			if m != nil || !errors.Is(err, ErrModel) {
				t.Fatalf("%v, model %v", err, m != nil)
			}
			return
		}
		again, err := m.Write()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := Read(again); err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if err := m.Upgrade(); err != nil && !errors.Is(err, ErrModel) {
			t.Fatal(err)
		}
		if err := m.SetBatch(2); err != nil && !errors.Is(err, ErrModel) {
			t.Fatal(err)
		}
		m.RemoveDead()
		if _, err := m.Write(); err != nil {
			t.Fatalf("after all passes it cannot be written: %v", err)
		}
	})
}
