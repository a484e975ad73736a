package onnx

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"vigil/infer/quant/onnx/pb"
)

// irVersion is the form of the files written: 8 is read by ONNX Runtime 1.10 and TensorRT 8.5 or later, and carries the
// operators of opsets 13 to 18. Newer opsets need a newer form.
func irVersion(opset int64) int64 {
	switch {
	case opset >= 23:
		return 11
	case opset >= 21:
		return 10
	case opset >= 19:
		return 9
	}
	return 8
}

// Write encodes the model. Equal models give equal bytes.
func (m *Model) Write() ([]byte, error) {
	if err := m.Sort(); err != nil {
		return nil, err
	}
	g := &pb.GraphProto{Name: proto.String(m.Name)}
	if m.Name == "" {
		g.Name = proto.String("graph") // the checker of ONNX wants one
	}
	for _, n := range m.Nodes {
		g.Node = append(g.Node, &pb.NodeProto{
			Name: &n.Name, OpType: &n.Op, Domain: optional(n.Domain), Input: n.Inputs, Output: n.Outputs, Attribute: n.Attrs.written(),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Inits)) {
		g.Initializer = append(g.Initializer, encode(name, m.Inits[name]))
	}
	for _, v := range m.Inputs {
		g.Input = append(g.Input, declare(v))
	}
	for _, v := range m.Outputs {
		g.Output = append(g.Output, declare(v))
	}
	p := &pb.ModelProto{IrVersion: proto.Int64(irVersion(m.Opset)), ProducerName: proto.String("vigil"), Graph: g}
	p.OpsetImport = append(p.OpsetImport, &pb.OperatorSetIdProto{Domain: proto.String(""), Version: &m.Opset})
	for _, d := range slices.Sorted(maps.Keys(m.Domains)) {
		p.OpsetImport = append(p.OpsetImport, &pb.OperatorSetIdProto{Domain: &d, Version: proto.Int64(m.Domains[d])})
	}
	for _, k := range slices.Sorted(maps.Keys(m.Metadata)) {
		p.MetadataProps = append(p.MetadataProps, &pb.StringStringEntryProto{Key: &k, Value: proto.String(m.Metadata[k])})
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		return nil, refuse("cannot be encoded: %w", err)
	}
	if len(data) > MaxBytes {
		return nil, refuse("it would be %d bytes, the limit is %d", len(data), MaxBytes)
	}
	return data, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func encode(name string, t *Tensor) *pb.TensorProto {
	return &pb.TensorProto{Name: &name, DataType: proto.Int32(int32(t.Type)), Dims: t.Dims, RawData: t.Data}
}

func declare(v Value) *pb.ValueInfoProto {
	t := &pb.TypeProto_Tensor{ElemType: proto.Int32(int32(v.Type))}
	if v.Dims != nil {
		t.Shape = &pb.TensorShapeProto{}
		for _, d := range v.Dims {
			x := &pb.TensorShapeProto_Dimension{}
			switch {
			case d.Size >= 0:
				x.Value = &pb.TensorShapeProto_Dimension_DimValue{DimValue: d.Size}
			case d.Param != "":
				x.Value = &pb.TensorShapeProto_Dimension_DimParam{DimParam: d.Param}
			}
			t.Shape.Dim = append(t.Shape.Dim, x)
		}
	}
	return &pb.ValueInfoProto{Name: proto.String(v.Name), Type: &pb.TypeProto{Value: &pb.TypeProto_TensorType{TensorType: t}}}
}
