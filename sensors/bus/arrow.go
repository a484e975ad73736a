package bus

import (
	flatbuffers "github.com/google/flatbuffers/go"

	"vigil/sensors"
)

// shape is what an Arrow tensor message says of a plane. Dimensions that are not there are 0.
type shape struct {
	dims, strides [3]int
	bytes         int
}

// shapeOf describes plane i of a frame, of n bytes.
func shapeOf(f *sensors.Frame, i, n int) shape {
	s := f.Planes[i].StrideBytes
	switch {
	case f.Format == sensors.MJPEG:
		return shape{dims: [3]int{n}, strides: [3]int{1}, bytes: n}
	case i == 1:
		return shape{dims: [3]int{f.Height / 2, f.Width / 2, 2}, strides: [3]int{s, 2, 1}, bytes: n}
	case f.Format == sensors.RGB24:
		return shape{dims: [3]int{f.Height, f.Width, 3}, strides: [3]int{s, 3, 1}, bytes: n}
	case f.Format == sensors.YUYV:
		return shape{dims: [3]int{f.Height, f.Width, 2}, strides: [3]int{s, 2, 1}, bytes: n}
	}
	return shape{dims: [3]int{f.Height, f.Width}, strides: [3]int{s, 1}, bytes: n}
}

// messages remembers the latest message of each plane, because neighbouring frames look alike: nothing is made per frame
// but for compressed pictures.
type messages struct {
	known [2]struct {
		shape shape
		bytes []byte
	}
	next int
	b    *flatbuffers.Builder
}

// messageBytes is the room for a message: it ends where the pixels begin.
const messageBytes = pixelsAt - messagesAt

// of returns the message of a shape, valid until the next call but one.
func (m *messages) of(s shape) []byte {
	for i := range m.known {
		if m.known[i].shape == s {
			return m.known[i].bytes
		}
	}
	k := &m.known[m.next]
	m.next = 1 - m.next
	if m.b == nil {
		m.b = flatbuffers.NewBuilder(messageBytes)
	}
	k.shape, k.bytes = s, encapsulate(k.bytes, encode(m.b, s))
	return k.bytes
}

// encapsulate writes marker, length and metadata so that the body begins messageBytes behind the start: Arrow's "encapsulated
// message format", whose metadata may be padded to any multiple of 8.
func encapsulate(dst, metadata []byte) []byte {
	dst = append(dst[:0], 0xff, 0xff, 0xff, 0xff)
	dst = le.AppendUint32(dst, messageBytes-8)
	dst = append(dst, metadata...)
	for len(dst) < messageBytes {
		dst = append(dst, 0)
	}
	return dst
}

// Numbers of Arrow's Message.fbs, Tensor.fbs and Schema.fbs.
const (
	arrowV5     = 4 // MetadataVersion
	typeInt     = 2 // union Type
	headerIsTen = 4 // union MessageHeader: Tensor
)

// encode makes the flatbuffer Message{version, header: Tensor{type: uint8, shape, strides, data}, bodyLength}.
func encode(b *flatbuffers.Builder, s shape) []byte {
	b.Reset()
	n := 0
	for n < len(s.dims) && s.dims[n] > 0 {
		n++
	}
	var dims [3]flatbuffers.UOffsetT
	for i := range n {
		b.StartObject(2) // TensorDim{size, name}
		b.PrependInt64Slot(0, int64(s.dims[i]), 0)
		dims[i] = b.EndObject()
	}
	b.StartVector(4, n, 4)
	for i := n - 1; i >= 0; i-- {
		b.PrependUOffsetT(dims[i])
	}
	shape := b.EndVector(n)
	b.StartVector(8, n, 8)
	for i := n - 1; i >= 0; i-- {
		b.PrependInt64(int64(s.strides[i]))
	}
	strides := b.EndVector(n)
	b.StartObject(2) // Int{bitWidth, is_signed}
	b.PrependInt32Slot(0, 8, 0)
	uint8Type := b.EndObject()
	b.StartObject(5) // Tensor{type_type, type, shape, strides, data}
	b.Prep(8, 16)    // struct Buffer{offset, length}
	b.PrependInt64(int64(s.bytes))
	b.PrependInt64(0)
	b.PrependStructSlot(4, b.Offset(), 0)
	b.PrependUOffsetTSlot(3, strides, 0)
	b.PrependUOffsetTSlot(2, shape, 0)
	b.PrependUOffsetTSlot(1, uint8Type, 0)
	b.PrependByteSlot(0, typeInt, 0)
	tensor := b.EndObject()
	b.StartObject(5) // Message{version, header_type, header, bodyLength, custom_metadata}
	b.PrependInt64Slot(3, int64(s.bytes), 0)
	b.PrependUOffsetTSlot(2, tensor, 0)
	b.PrependInt16Slot(0, arrowV5, 0)
	b.PrependByteSlot(1, headerIsTen, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}
