package kserve

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"vigil/infer"
)

// maxTensors bounds the inputs and outputs of a request; no model of a device has more.
const maxTensors = 64

// Parse reads a request: JSON of headerLength bytes with binary tensors behind it in the order of the inputs, or JSON alone
// (-1). Binary data is not copied: it stays part of body. Errors: ErrRequest.
func Parse(body []byte, headerLength int) (*Request, error) {
	head, rest := body, []byte(nil)
	if headerLength >= 0 {
		if headerLength > len(body) {
			return nil, fmt.Errorf("%w: %s says %d bytes, the body has %d", ErrRequest, HeaderLength, headerLength, len(body))
		}
		head, rest = body[:headerLength], body[headerLength:]
	}
	q := &Request{binary: map[string][]byte{}}
	if err := json.Unmarshal(head, q); err != nil {
		return nil, fmt.Errorf("%w: JSON: %v", ErrRequest, err)
	}
	if len(q.Inputs) == 0 || len(q.Inputs) > maxTensors || len(q.Outputs) > maxTensors {
		return nil, fmt.Errorf("%w: %d inputs and %d outputs: at least one input, and at most %d of each", ErrRequest, len(q.Inputs), len(q.Outputs), maxTensors)
	}
	for i := range q.Inputs {
		in := &q.Inputs[i]
		size := in.Parameters.BinaryDataSize
		switch {
		case size == nil && len(in.Data) == 0:
			return nil, fmt.Errorf("%w: input %q has no data", ErrRequest, in.Name)
		case size == nil:
			continue
		case len(in.Data) > 0:
			return nil, fmt.Errorf("%w: input %q has data both as JSON and in binary", ErrRequest, in.Name)
		case *size < 0 || *size > int64(len(rest)):
			return nil, fmt.Errorf("%w: input %q has %d bytes of binary data, %d are left", ErrRequest, in.Name, *size, len(rest))
		case q.binary[in.Name] != nil:
			return nil, fmt.Errorf("%w: input %q is there twice", ErrRequest, in.Name)
		}
		q.binary[in.Name], rest = rest[:*size:*size], rest[*size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last tensor", ErrRequest, len(rest))
	}
	return q, nil
}

// check compares the request with the tensors of a model.
func (q *Request) check(st *Stage) error {
	if len(q.Inputs) != len(st.Inputs) {
		return fmt.Errorf("%w: %d inputs, the model has %d", ErrRequest, len(q.Inputs), len(st.Inputs))
	}
	for i := range st.Inputs {
		want := &st.Inputs[i]
		in := q.input(want.Name)
		switch {
		case in == nil:
			return fmt.Errorf("%w: the input %q is missing", ErrRequest, want.Name)
		case in.Datatype != fp32:
			return fmt.Errorf("%w: input %q: datatype %q, the model has FP32", ErrRequest, in.Name, in.Datatype)
		case !slices.Equal(in.Shape, want.Shape):
			return fmt.Errorf("%w: input %q: shape %v, the model has %v", ErrRequest, in.Name, in.Shape, want.Shape)
		}
	}
	seen := map[string]bool{}
	for _, o := range q.Outputs {
		if seen[o.Name] || !slices.ContainsFunc(st.Outputs, func(t infer.Tensor) bool { return t.Name == o.Name }) {
			return fmt.Errorf("%w: output %q: the model has none of that name, or it is asked for twice", ErrRequest, o.Name)
		}
		seen[o.Name] = true
	}
	return nil
}

func (q *Request) input(name string) *Input {
	for i := range q.Inputs {
		if q.Inputs[i].Name == name {
			return &q.Inputs[i]
		}
	}
	return nil
}

// fill writes the input that the tensor describes into dst.
func (q *Request) fill(dst []float32, t *infer.Tensor) error {
	in := q.input(t.Name)
	raw, ok := q.binary[in.Name]
	if !ok {
		return fillJSON(dst, in, len(t.Shape))
	}
	if len(raw) != 4*len(dst) {
		return fmt.Errorf("%w: input %q: %d bytes of binary data, its shape has %d", ErrRequest, in.Name, len(raw), 4*len(dst))
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}

// fillJSON writes numbers in row-major order, nested up to the depth of the shape.
func fillJSON(dst []float32, in *Input, depth int) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: input %q: data: %s", ErrRequest, in.Name, fmt.Sprintf(format, args...))
	}
	d := json.NewDecoder(bytes.NewReader(in.Data))
	n, level := 0, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad("%v", err)
		}
		switch v := token.(type) {
		case json.Delim:
			switch v {
			case '[':
				level++
			case ']':
				level--
			default:
				return bad("an object among numbers")
			}
			if level > depth {
				return bad("nested deeper than the shape")
			}
		case float64:
			if level == 0 || n >= len(dst) || math.Abs(v) > math.MaxFloat32 {
				return bad("not a list of %d FP32 numbers", len(dst))
			}
			dst[n] = float32(v)
			n++
		default:
			return bad("%v is no number", token)
		}
	}
	if n != len(dst) {
		return bad("%d numbers, its shape has %d", n, len(dst))
	}
	return nil
}

// answer writes the outputs that were asked for, all if none was named.
func (q *Request) answer(st *Stage, tensors infer.IO) (body []byte, jsonLength int, err error) {
	r := Response{ModelName: st.Name, ModelVersion: "1", ID: q.ID, Outputs: []OutputTensor{}}
	var behind []byte
	anyBinary := false
	for i := range st.Outputs {
		t := &st.Outputs[i]
		wanted, inBinary := q.wants(t.Name)
		if !wanted {
			continue
		}
		values := tensors.Output(i)
		out := OutputTensor{Name: t.Name, Datatype: fp32, Shape: t.Shape}
		if inBinary {
			size := int64(4 * len(values))
			out.Parameters.BinaryDataSize, anyBinary = &size, true
			behind = slices.Grow(behind, int(size))
			for _, v := range values {
				behind = binary.LittleEndian.AppendUint32(behind, math.Float32bits(v))
			}
		} else {
			if out.Data = slices.Clone(values); !finite(out.Data) {
				return nil, 0, fmt.Errorf("%w: output %q holds values that JSON cannot: ask for it in binary", ErrRequest, t.Name)
			}
		}
		r.Outputs = append(r.Outputs, out)
	}
	if body, err = json.Marshal(r); err != nil || !anyBinary {
		return body, -1, err
	}
	return append(body, behind...), len(body), nil
}

// wants says whether an output is asked for, and whether in binary.
func (q *Request) wants(name string) (wanted, inBinary bool) {
	inBinary = q.Parameters.BinaryDataOutput
	if len(q.Outputs) == 0 {
		return true, inBinary
	}
	for _, o := range q.Outputs {
		if o.Name == name {
			if o.Parameters.BinaryData != nil {
				inBinary = *o.Parameters.BinaryData
			}
			return true, inBinary
		}
	}
	return false, false
}

func finite(values []float32) bool {
	for _, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
