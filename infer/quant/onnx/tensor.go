package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"vigil/infer/quant/onnx/pb"
)

// Type is the type of a tensor's elements, numbered as in the schema.
type Type int32

// The types that passes handle; others are carried along.
const (
	Float Type = Type(pb.TensorProto_FLOAT)
	Uint8 Type = Type(pb.TensorProto_UINT8)
	Int8  Type = Type(pb.TensorProto_INT8)
	Int32 Type = Type(pb.TensorProto_INT32)
	Int64 Type = Type(pb.TensorProto_INT64)
	Bool  Type = Type(pb.TensorProto_BOOL)
)

// sizes are the bytes per element of the types that can be read.
var sizes = map[Type]int64{
	Float: 4, Uint8: 1, Int8: 1, Int32: 4, Int64: 8, Bool: 1,
	Type(pb.TensorProto_UINT16): 2, Type(pb.TensorProto_INT16): 2, Type(pb.TensorProto_FLOAT16): 2,
	Type(pb.TensorProto_BFLOAT16): 2, Type(pb.TensorProto_DOUBLE): 8, Type(pb.TensorProto_UINT32): 4, Type(pb.TensorProto_UINT64): 8,
}

func (t Type) String() string { return pb.TensorProto_DataType(t).String() }

// Tensor is a constant. Nobody changes it in place: passes put another in its stead.
type Tensor struct {
	Type Type
	Dims []int64 // none for a scalar
	Data []byte  // little-endian, row-major
}

// maxTensorBytes bounds one tensor, constant or computed. The wire format cannot carry more than 2 GiB.
const maxTensorBytes = 1 << 30

// Elements is the product of the sizes; false if a size is negative or the product times 8 bytes is over the limit.
func Elements(dims []int64) (int64, bool) {
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > maxTensorBytes {
			return 0, false
		}
		if n *= d; n > maxTensorBytes/4 {
			return 0, false
		}
	}
	return n, true
}

// Len is the number of elements.
func (t *Tensor) Len() int { return len(t.Data) / int(sizes[t.Type]) }

func (t *Tensor) String() string { return fmt.Sprintf("%v%v", t.Type, t.Dims) }

// Floats copies the values of a Float tensor.
func (t *Tensor) Floats() ([]float32, error) {
	if t.Type != Float {
		return nil, fmt.Errorf("tensor is %v, not FLOAT", t.Type)
	}
	out := make([]float32, len(t.Data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out, nil
}

// Ints copies the values of a tensor of integers.
func (t *Tensor) Ints() ([]int64, error) {
	out := make([]int64, t.Len())
	for i := range out {
		switch t.Type {
		case Int64:
			out[i] = int64(binary.LittleEndian.Uint64(t.Data[8*i:]))
		case Int32:
			out[i] = int64(int32(binary.LittleEndian.Uint32(t.Data[4*i:])))
		case Int8:
			out[i] = int64(int8(t.Data[i]))
		case Uint8, Bool:
			out[i] = int64(t.Data[i])
		default:
			return nil, fmt.Errorf("tensor is %v, not of integers", t.Type)
		}
	}
	return out, nil
}

// FloatTensor makes a constant of float32 values; without sizes a scalar.
func FloatTensor(values []float32, dims ...int64) *Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return &Tensor{Type: Float, Dims: dims, Data: data}
}

// IntTensor makes a constant of type Int64, Int32, Int8, Uint8 or Bool; without sizes a scalar. Values that do not fit
// the type are a mistake of the caller and panic.
func IntTensor(typ Type, values []int64, dims ...int64) *Tensor {
	data := make([]byte, 0, int(sizes[typ])*len(values))
	for _, v := range values {
		switch {
		case typ == Int64:
			data = binary.LittleEndian.AppendUint64(data, uint64(v))
		case typ == Int32 && v == int64(int32(v)):
			data = binary.LittleEndian.AppendUint32(data, uint32(int32(v)))
		case typ == Int8 && v == int64(int8(v)), (typ == Uint8 || typ == Bool) && v == int64(uint8(v)):
			data = append(data, byte(v))
		default:
			panic(fmt.Sprintf("onnx: %d does not fit type %v", v, typ))
		}
	}
	return &Tensor{Type: typ, Dims: dims, Data: data}
}
