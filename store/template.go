package store

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Bounds of a template.
const (
	minDim        = 16
	maxDim        = 16384
	maxModelBytes = 128
)

// Template is one biometric template: an int8 vector and the scale that makes
// it unit length, or a row that only the Comparer of its model understands.
type Template struct {
	ModelID string  // templates of different models cannot be compared; 1 to 128 bytes
	Values  []int8  // 16 to 16384 values
	Scale   float32 // the unit vector is Values[i] * Scale; 1 where a Comparer reads the row
	Quality float32 // as the model's pipeline defines it; not used here
}

// check says what is wrong with t.
func (t Template) check() error { return checkTemplate(t.ModelID, len(t.Values), t.Scale, t.Quality) }

func checkTemplate(modelID string, dim int, scale, quality float32) error {
	switch {
	case modelID == "" || len(modelID) > maxModelBytes:
		return fmt.Errorf("cannot use template: model id has %d bytes, it must have 1 to %d: %w", len(modelID), maxModelBytes, ErrInvalid)
	case dim < minDim || dim > maxDim:
		return fmt.Errorf("cannot use template of model %q: it has %d values, it must have %d to %d: %w", modelID, dim, minDim, maxDim, ErrInvalid)
	case !(scale > 0) || math.IsInf(float64(scale), 0):
		return fmt.Errorf("cannot use template of model %q: scale %v is not a positive number: %w", modelID, scale, ErrInvalid)
	case quality != quality || math.IsInf(float64(quality), 0):
		return fmt.Errorf("cannot use template of model %q: quality %v is not a number: %w", modelID, quality, ErrInvalid)
	}
	return nil
}

const (
	templateVersion = 1
	// templateOverhead is the encoded length less model id and values: version,
	// model id length, scale, quality.
	templateOverhead = 1 + 1 + 4 + 4
	// templateMaxBytes is the longest encoded template.
	templateMaxBytes = templateOverhead + maxModelBytes + maxDim
)

// encode appends the plaintext of a template record to dst: version, length of
// the model id, model id, scale and quality as big-endian IEEE 754 bits, values.
func (t Template) encode(dst []byte) []byte {
	dst = append(dst, templateVersion, byte(len(t.ModelID)))
	dst = append(dst, t.ModelID...)
	dst = binary.BigEndian.AppendUint32(dst, math.Float32bits(t.Scale))
	dst = binary.BigEndian.AppendUint32(dst, math.Float32bits(t.Quality))
	for _, v := range t.Values {
		dst = append(dst, byte(v))
	}
	return dst
}

// rawTemplate is a decoded template whose values still lie in the bytes it was
// decoded from, so that they are copied once, into a gallery.
type rawTemplate struct {
	modelID        string
	scale, quality float32
	values         []byte // two's complement
}

// decodeTemplate is the reverse of encode; ok is false for anything that check
// would refuse.
func decodeTemplate(raw []byte) (t rawTemplate, ok bool) {
	if len(raw) < templateOverhead || raw[0] != templateVersion {
		return t, false
	}
	n := int(raw[1])
	if len(raw) < templateOverhead+n {
		return t, false
	}
	t.modelID, raw = string(raw[2:2+n]), raw[2+n:]
	t.scale = math.Float32frombits(binary.BigEndian.Uint32(raw))
	t.quality = math.Float32frombits(binary.BigEndian.Uint32(raw[4:]))
	t.values = raw[8:]
	return t, checkTemplate(t.modelID, len(t.values), t.scale, t.quality) == nil
}
