package onnx

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"vigil/infer/quant/onnx/pb"
)

// Limits of what Read accepts.
const (
	MaxBytes  = 512 << 20
	maxNodes  = 1 << 16
	maxAxes   = 16
	MinOpset  = 7  // before it, broadcasting was an attribute
	MaxOpset  = 26 // the newest that the schema was read for
	maxDepth  = 32 // nested messages
	maxDomain = 16
)

// Read decodes and checks a model. The result shares no memory with data.
func Read(data []byte) (*Model, error) {
	if len(data) == 0 || len(data) > MaxBytes {
		return nil, refuse("%d bytes: a model has 1 to %d", len(data), MaxBytes)
	}
	var p pb.ModelProto
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(data, &p); err != nil {
		return nil, refuse("not an ONNX file: %w", err)
	}
	m := &Model{Inits: map[string]*Tensor{}, known: map[string]Value{}, Domains: map[string]int64{}, Metadata: map[string]string{}}
	if err := m.header(&p); err != nil {
		return nil, err
	}
	g := p.GetGraph()
	m.Name = g.GetName()
	for _, read := range []func(*pb.GraphProto) error{m.initialisers, m.values, m.nodes} {
		if err := read(g); err != nil {
			return nil, err
		}
	}
	if err := m.Sort(); err != nil {
		return nil, err
	}
	return m, nil
}

// header reads what stands beside the graph.
func (m *Model) header(p *pb.ModelProto) error {
	for _, o := range p.GetOpsetImport() {
		if d := o.GetDomain(); d == "" || d == "ai.onnx" {
			m.Opset = o.GetVersion()
		} else {
			m.Domains[d] = o.GetVersion()
		}
	}
	g := p.GetGraph()
	switch {
	case g == nil || len(g.GetNode()) == 0:
		return refuse("it holds no graph with nodes: is this an ONNX file?")
	case m.Opset < MinOpset || m.Opset > MaxOpset:
		return refuse("opset %d: opsets %d to %d can be read; export the model again with one of them, best 13 to 18", m.Opset, MinOpset, MaxOpset)
	case len(p.GetFunctions()) > 0:
		return refuse("it defines functions (%q first): inline them when exporting", p.GetFunctions()[0].GetName())
	case len(p.GetTrainingInfo()) > 0:
		return refuse("it carries training information: export it for inference")
	case len(g.GetSparseInitializer()) > 0:
		return refuse("it has sparse initialisers: store the weights densely")
	case len(g.GetNode()) > maxNodes:
		return refuse("%d nodes: at most %d can be read", len(g.GetNode()), maxNodes)
	case len(m.Domains) > maxDomain:
		return refuse("%d operator domains: at most %d can be read", len(m.Domains), maxDomain)
	}
	for _, e := range p.GetMetadataProps() {
		m.Metadata[e.GetKey()] = e.GetValue()
	}
	return nil
}

func (m *Model) initialisers(g *pb.GraphProto) error {
	for _, t := range g.GetInitializer() {
		name := t.GetName()
		if name == "" || m.Inits[name] != nil {
			return refuse("initialiser %q: every initialiser needs a name of its own", name)
		}
		c, err := constant(t)
		if err != nil {
			return refuse("initialiser %q: %w", name, err)
		}
		m.Inits[name] = c
	}
	return nil
}

// constant checks a tensor and brings its values into one form.
func constant(t *pb.TensorProto) (*Tensor, error) {
	typ := Type(t.GetDataType())
	size, known := sizes[typ]
	n, fits := Elements(t.GetDims())
	switch {
	case t.GetDataLocation() == pb.TensorProto_EXTERNAL || len(t.GetExternalData()) > 0:
		return nil, fmt.Errorf("its data lies in another file: save the model with its weights inside")
	case !known:
		return nil, fmt.Errorf("type %v cannot be read: use float32 weights", typ)
	case t.GetSegment() != nil:
		return nil, fmt.Errorf("it is cut into segments: save it whole")
	case len(t.GetDims()) > maxAxes:
		return nil, fmt.Errorf("%d axes: at most %d can be read", len(t.GetDims()), maxAxes)
	case !fits || n*size > maxTensorBytes:
		return nil, fmt.Errorf("shape %v is negative or over %d bytes", t.GetDims(), maxTensorBytes)
	}
	data := t.GetRawData() // decoding has copied it
	if len(data) == 0 {
		data = unpack(t, typ)
	}
	if int64(len(data)) != n*size {
		return nil, fmt.Errorf("shape %v of %v needs %d bytes, the file holds %d: it is damaged", t.GetDims(), typ, n*size, len(data))
	}
	return &Tensor{Type: typ, Dims: slices.Clone(t.GetDims()), Data: data}, nil
}

// unpack collects the values from the field that the schema names for the type.
func unpack(t *pb.TensorProto, typ Type) (data []byte) {
	le := binary.LittleEndian
	switch size := sizes[typ]; {
	case typ == Float:
		for _, v := range t.GetFloatData() {
			data = le.AppendUint32(data, math.Float32bits(v))
		}
	case typ == Type(pb.TensorProto_DOUBLE):
		for _, v := range t.GetDoubleData() {
			data = le.AppendUint64(data, math.Float64bits(v))
		}
	case typ == Int64:
		for _, v := range t.GetInt64Data() {
			data = le.AppendUint64(data, uint64(v))
		}
	case typ == Type(pb.TensorProto_UINT32):
		for _, v := range t.GetUint64Data() {
			data = le.AppendUint32(data, uint32(v))
		}
	case typ == Type(pb.TensorProto_UINT64):
		for _, v := range t.GetUint64Data() {
			data = le.AppendUint64(data, v)
		}
	default: // int32_data carries the smaller types, a value each
		for _, v := range t.GetInt32Data() {
			switch size {
			case 1:
				data = append(data, byte(v))
			case 2:
				data = le.AppendUint16(data, uint16(v))
			default:
				data = le.AppendUint32(data, uint32(v))
			}
		}
	}
	return data
}

func (m *Model) values(g *pb.GraphProto) error {
	seen := map[string]bool{}
	for _, in := range g.GetInput() {
		v, err := value(in)
		switch {
		case err != nil:
			return refuse("input %q: %w", in.GetName(), err)
		case seen[v.Name]:
			return refuse("input %q is declared twice", v.Name)
		case m.Inits[v.Name] != nil: // IR versions before 4 list the weights as inputs
			continue
		}
		seen[v.Name] = true
		m.Inputs = append(m.Inputs, v)
	}
	seen = map[string]bool{}
	for _, out := range g.GetOutput() {
		v, err := value(out)
		switch {
		case err != nil:
			return refuse("output %q: %w", out.GetName(), err)
		case seen[v.Name]:
			return refuse("output %q is declared twice", v.Name)
		}
		seen[v.Name] = true
		m.Outputs = append(m.Outputs, v)
	}
	if len(m.Inputs) == 0 || len(m.Outputs) == 0 {
		return refuse("%d inputs and %d outputs: a model needs at least one of each", len(m.Inputs), len(m.Outputs))
	}
	for _, info := range g.GetValueInfo() {
		if v, err := value(info); err == nil {
			m.known[v.Name] = v
		}
	}
	return nil
}

// value checks a declaration of a tensor.
func value(p *pb.ValueInfoProto) (Value, error) {
	t := p.GetType().GetTensorType()
	if p.GetName() == "" || t == nil {
		return Value{}, fmt.Errorf("it must be a tensor with a name")
	}
	v := Value{Name: p.GetName(), Type: Type(t.GetElemType())}
	if sizes[v.Type] == 0 {
		return Value{}, fmt.Errorf("type %v cannot be read", v.Type)
	}
	if t.GetShape() == nil {
		return v, nil
	}
	v.Dims = []Dim{}
	var positive []int64
	for _, d := range t.GetShape().GetDim() {
		x := Dim{Size: -1, Param: d.GetDimParam()}
		if _, ok := d.GetValue().(*pb.TensorShapeProto_Dimension_DimValue); ok && d.GetDimValue() != 0 {
			x.Size = d.GetDimValue() // some exporters write 0 for "not known"
			positive = append(positive, x.Size)
		}
		if x.Size < -1 {
			return Value{}, fmt.Errorf("an axis has the size %d", x.Size)
		}
		v.Dims = append(v.Dims, x)
	}
	if slices.Contains(positive, -1) {
		positive = slices.DeleteFunc(positive, func(n int64) bool { return n < 0 })
	}
	if n, ok := Elements(positive); len(v.Dims) > maxAxes || !ok || n*sizes[v.Type] > maxTensorBytes {
		return Value{}, fmt.Errorf("shape %v is over %d bytes or %d axes", v.Shape(), maxTensorBytes, maxAxes)
	}
	return v, nil
}

func (m *Model) nodes(g *pb.GraphProto) error {
	names := map[string]bool{}
	for i, p := range g.GetNode() {
		n := &Node{Name: p.GetName(), Op: p.GetOpType(), Domain: p.GetDomain(), Inputs: slices.Clone(p.GetInput()), Outputs: slices.Clone(p.GetOutput())}
		if n.Domain == "ai.onnx" {
			n.Domain = ""
		}
		if n.Name == "" && len(n.Outputs) > 0 {
			n.Name = n.Op + "_" + n.Outputs[0]
		}
		for base, k := cmp.Or(n.Name, fmt.Sprintf("%s_%d", n.Op, i)), 1; n.Name == "" || names[n.Name]; k++ {
			n.Name = fmt.Sprintf("%s.%d", base, k)
		}
		names[n.Name] = true
		switch {
		case n.Op == "":
			return refuse("node %q has no operator", n.Name)
		case len(n.Outputs) == 0 || n.Outputs[0] == "" && len(n.Outputs) == 1:
			return refuse("%v has no output", n)
		case n.Domain != "" && m.Domains[n.Domain] == 0:
			return refuse("%v is of the domain %q, which the model does not import", n, n.Domain)
		}
		for _, a := range p.GetAttribute() {
			if a.GetG() != nil || len(a.GetGraphs()) > 0 {
				return refuse("%v holds a subgraph (%s): control flow cannot be quantised; export the model with it unrolled", n, a.GetName())
			}
			if n.Attrs.Has(a.GetName()) {
				return refuse("%v has the attribute %q twice", n, a.GetName())
			}
			n.Attrs = append(n.Attrs, a)
		}
		m.Nodes = append(m.Nodes, n)
	}
	return nil
}
