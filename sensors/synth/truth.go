package synth

import (
	"encoding/json"
	"fmt"
)

func unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cannot read a transform: %v", err)
	}
	return nil
}

// CellPixels is the side of a cell of Truth.Orientation.
const CellPixels = 8

// NoRidge is the entry of Truth.Orientation where there is no print.
const NoRidge = 255

// Truth is what is known of an impression, in picture pixels. It encodes to JSON of some ten kilobytes, to lie beside the
// picture; all but the orientation, which is rounded to a degree, survives that exactly.
type Truth struct {
	FingerSeed     uint64        `json:"finger_seed,string"`
	ImpressionSeed uint64        `json:"impression_seed,string"`
	Class          Class         `json:"class"`
	Minutiae       []Minutia     `json:"minutiae"`      // those under the contact region
	Singularities  []Singularity `json:"singularities"` // those under the contact region
	Columns        int           `json:"columns"`       // cells in a row of Orientation
	Orientation    []uint8       `json:"orientation"`   // whole degrees 0 to 179 in the middle of each cell, row by row, or NoRidge
	Mask           Mask          `json:"mask"`
	Transform      *Transform    `json:"transform"`
	Condition      Condition     `json:"condition"`
}

// Mask says which pixels of a picture show the finger.
type Mask struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Bits   []byte `json:"bits"` // row by row without gaps, the lowest bit first
}

func (m *Mask) reset(w, h int) {
	m.Width, m.Height = w, h
	m.Bits = resized(m.Bits, (w*h+7)/8)
	clear(m.Bits)
}

func (m *Mask) set(at int) { m.Bits[at>>3] |= 1 << (at & 7) }

// At says whether a pixel shows the finger; nothing outside the picture does.
func (m *Mask) At(x, y int) bool {
	at := y*m.Width + x
	return uint(x) < uint(m.Width) && uint(y) < uint(m.Height) && at>>3 < len(m.Bits) && m.Bits[at>>3]>>(at&7)&1 != 0
}
