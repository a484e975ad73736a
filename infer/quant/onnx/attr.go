package onnx

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"vigil/infer/quant/onnx/pb"
)

// Attrs are the attributes of a node. A missing one has the default of its operator, which the reader names.
type Attrs []*pb.AttributeProto

func (a Attrs) clone() Attrs {
	out := slices.Clone(a) // an attribute itself is never changed in place
	return out
}

func (a Attrs) find(name string) *pb.AttributeProto {
	for _, x := range a {
		if x.GetName() == name {
			return x
		}
	}
	return nil
}

// Has reports whether the attribute is there.
func (a Attrs) Has(name string) bool { return a.find(name) != nil }

// Int is an integer attribute.
func (a Attrs) Int(name string, def int64) int64 {
	if x := a.find(name); x != nil {
		return x.GetI()
	}
	return def
}

// Float is a float attribute.
func (a Attrs) Float(name string, def float32) float32 {
	if x := a.find(name); x != nil {
		return x.GetF()
	}
	return def
}

// Text is a string attribute.
func (a Attrs) Text(name, def string) string {
	if x := a.find(name); x != nil {
		return string(x.GetS())
	}
	return def
}

// Ints is an attribute of integers; nil if it is missing.
func (a Attrs) Ints(name string) []int64 { return slices.Clone(a.find(name).GetInts()) }

// Floats is an attribute of floats; nil if it is missing.
func (a Attrs) Floats(name string) []float32 { return slices.Clone(a.find(name).GetFloats()) }

// SetInt adds or replaces an attribute.
func (a *Attrs) SetInt(name string, v int64) {
	a.set(&pb.AttributeProto{Name: &name, Type: pb.AttributeProto_INT.Enum(), I: &v})
}

// SetInts adds or replaces an attribute.
func (a *Attrs) SetInts(name string, v ...int64) {
	a.set(&pb.AttributeProto{Name: &name, Type: pb.AttributeProto_INTS.Enum(), Ints: v})
}

// SetFloat adds or replaces an attribute.
func (a *Attrs) SetFloat(name string, v float32) {
	a.set(&pb.AttributeProto{Name: &name, Type: pb.AttributeProto_FLOAT.Enum(), F: &v})
}

// SetText adds or replaces an attribute.
func (a *Attrs) SetText(name, v string) {
	a.set(&pb.AttributeProto{Name: &name, Type: pb.AttributeProto_STRING.Enum(), S: []byte(v)})
}

func (a *Attrs) set(x *pb.AttributeProto) {
	a.Remove(x.GetName())
	*a = append(*a, x)
}

// Remove takes attributes away, if they are there.
func (a *Attrs) Remove(names ...string) {
	*a = slices.DeleteFunc(slices.Clone(*a), func(x *pb.AttributeProto) bool { return slices.Contains(names, x.GetName()) })
}

// written is the attributes in the order of their names, without what never matters.
func (a Attrs) written() []*pb.AttributeProto {
	out := make([]*pb.AttributeProto, len(a))
	for i, x := range a {
		out[i] = proto.CloneOf(x)
		out[i].DocString = nil
	}
	slices.SortFunc(out, func(x, y *pb.AttributeProto) int { return strings.Compare(x.GetName(), y.GetName()) })
	return out
}

// Tensor is a tensor attribute; nil if it is missing or cannot be read.
func (a Attrs) Tensor(name string) *Tensor {
	x := a.find(name)
	if x.GetT() == nil {
		return nil
	}
	t, err := constant(x.GetT())
	if err != nil {
		return nil
	}
	return t
}
