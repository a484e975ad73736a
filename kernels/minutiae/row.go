package minutiae

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Sizes of a row.
const (
	Max             = 64 // minutiae of a row; the best are kept
	DescriptorBytes = 64 // int8 values of a description, a vector of length 127
	Bytes           = headerBytes + Max*placeBytes + Max*DescriptorBytes

	headerBytes = 128
	placeBytes  = 8
	version     = 1
	places      = headerBytes
	descriptors = headerBytes + Max*placeBytes
)

// unit is the resolution of places: sixteenths of a pixel at 500 dpi, so that int16 holds 2047 pixels.
const unit = 16

// MaskColumns and MaskRows are the cells of a row's mask, each MaskCell pixels wide and high.
const (
	MaskCell    = 16
	MaskColumns = 26
	MaskRows    = 32
	maskAt      = 8
)

// Minutia is an ending or a fork of a ridge, in pixels at 500 dpi. Its angle (radians, counter-clockwise as one sees it)
// points from an ending back along its ridge, and from a fork into the valley between its legs.
type Minutia struct {
	X, Y    float32
	Angle   float32
	Quality float32 // 0 to 1
}

// ErrRow means that bytes are no row of this package.
var ErrRow = errors.New("not a minutiae template")

// Clear makes dst, of Bytes values, a row without minutiae and with an empty mask.
func Clear(dst []int8) {
	clear(dst[:Bytes])
	dst[0] = version
}

// Append adds a minutia and its description (any length but zero; it is scaled to 127) to a row; false when it is full or
// the minutia lies outside 0 to 2047 pixels or the description is empty or not a number.
func Append(row []int8, m Minutia, description []float32) bool {
	if !fits(row, m) || len(description) != DescriptorBytes || !Quantise(next(row), description) {
		return false
	}
	place(row, m)
	return true
}

// AppendWhole is Append for a description that is scaled already: whole numbers from -127 to 127, as Quantise gives them.
// Zeros are an empty description.
func AppendWhole(row []int8, m Minutia, description []float32) bool {
	if !fits(row, m) || len(description) != DescriptorBytes {
		return false
	}
	out, some := next(row), int8(0)
	for i, v := range description {
		out[i] = int8(v)
		some |= out[i]
	}
	if some == 0 {
		return false
	}
	place(row, m)
	return true
}

// Quantise scales a description to the length 127 and rounds half to even. One that is empty or not a number gives zeros
// and false. dst is as long as the description.
func Quantise(dst []int8, description []float32) bool {
	var sum float64
	for _, v := range description {
		sum += float64(v) * float64(v)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		clear(dst)
		return false
	}
	scale := 127 / math.Sqrt(sum)
	for i, v := range description {
		dst[i] = int8(math.RoundToEven(float64(v) * scale))
	}
	return true
}

// fits reports whether the row has room and the minutia a place that can be stored.
func fits(row []int8, m Minutia) bool {
	return Count(row) < Max && m.X >= 0 && m.X < 2047 && m.Y >= 0 && m.Y < 2047
}

// next is where the description of the next minutia lies.
func next(row []int8) []int8 {
	return row[descriptors+Count(row)*DescriptorBytes:][:DescriptorBytes]
}

// place stores the minutia whose description lies in next, and counts it.
func place(row []int8, m Minutia) {
	n := Count(row)
	at := row[places+n*placeBytes:][:placeBytes]
	putUint16(at[0:], uint16(m.X*unit+0.5))
	putUint16(at[2:], uint16(m.Y*unit+0.5))
	at[4] = int8(uint8(int(math.RoundToEven(float64(m.Angle) * (256 / (2 * math.Pi))))))
	at[5] = int8(uint8(max(0, min(255, m.Quality*255+0.5))))
	row[1] = int8(n + 1)
}

// SetMask marks a cell as showing the finger.
func SetMask(row []int8, column, r int) {
	bit := r*MaskColumns + column
	row[maskAt+bit/8] |= int8(uint8(1) << (bit % 8))
}

// Mask says whether a cell shows the finger.
func Mask(row []int8, column, r int) bool {
	bit := r*MaskColumns + column
	return uint8(row[maskAt+bit/8])>>(bit%8)&1 != 0
}

// Count is the number of minutiae of a row that Check accepts.
func Count(row []int8) int { return int(row[1]) }

// At returns minutia i of a row.
func At(row []int8, i int) Minutia {
	at := row[places+i*placeBytes:][:placeBytes]
	return Minutia{
		X: float32(getUint16(at[0:])) / unit, Y: float32(getUint16(at[2:])) / unit,
		Angle: float32(uint8(at[4])) * (2 * math.Pi / 256), Quality: float32(uint8(at[5])) / 255,
	}
}

// Descriptor returns the description of minutia i, a part of the row.
func Descriptor(row []int8, i int) []int8 {
	return row[descriptors+i*DescriptorBytes:][:DescriptorBytes:DescriptorBytes]
}

// Check says whether bytes are a row; the error matches ErrRow.
func Check(row []int8) error {
	if len(row) != Bytes {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrRow, len(row), Bytes)
	}
	if row[0] != version {
		return fmt.Errorf("%w: version %d instead of %d", ErrRow, uint8(row[0]), version)
	}
	if row[1] < 0 || row[1] > Max {
		return fmt.Errorf("%w: it claims %d minutiae, at most %d fit", ErrRow, uint8(row[1]), Max)
	}
	return nil
}

func putUint16(b []int8, v uint16) {
	var raw [2]byte
	binary.LittleEndian.PutUint16(raw[:], v)
	b[0], b[1] = int8(raw[0]), int8(raw[1])
}

func getUint16(b []int8) uint16 { return uint16(uint8(b[0])) | uint16(uint8(b[1]))<<8 }
