package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"

	"vigil/sensors"
)

// painter makes pictures that carry a counter.
type painter struct {
	format     sensors.Format
	base, data []byte
}

func newPainter(f sensors.Format) *painter {
	p := &painter{format: f}
	if f == sensors.MJPEG {
		img := image.NewGray(image.Rect(0, 0, uvcWidth, uvcHeight))
		for i := range img.Pix {
			img.SetGray(i%uvcWidth, i/uvcWidth, color.Gray{byte(i * i >> 7)})
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, img, nil); err != nil {
			panic(err) // a good picture into memory
		}
		p.base = b.Bytes()
		return p
	}
	p.base = make([]byte, frameBytes(f))
	for i := range p.base {
		p.base[i] = byte(i*7 + i>>8)
	}
	p.data = make([]byte, len(p.base))
	return p
}

// paint is picture number n. A raw one has n in its first bytes and, mixed with the pattern, in every other; a JPEG has it
// with a checksum in a comment whose length varies.
func (p *painter) paint(n uint32) []byte {
	le := binary.LittleEndian
	if p.format != sensors.MJPEG {
		for i, b := range p.base {
			p.data[i] = b ^ byte(n) ^ byte(n>>8)
		}
		le.PutUint32(p.data, n)
		return p.data
	}
	comment := make([]byte, 8+n%300)
	le.PutUint32(comment, n)
	le.PutUint32(comment[4:], crc32.ChecksumIEEE(p.base[2:])^n)
	p.data = append(p.data[:0], 0xff, 0xd8, 0xff, 0xfe, byte((len(comment)+2)>>8), byte(len(comment)+2))
	p.data = append(p.data, comment...)
	p.data = append(p.data, p.base[2:]...)
	return p.data
}

// read checks a frame and says its number.
func (p *painter) read(f *sensors.Frame) (uint32, error) {
	data := f.Planes[0].Data
	if p.format == sensors.MJPEG {
		n := binary.LittleEndian.Uint32(data[6:])
		if want := p.paint(n); !bytes.Equal(data, want) {
			return n, fmt.Errorf("JPEG of %d bytes is not the one of %d", len(data), len(want))
		}
		return n, nil
	}
	n := binary.LittleEndian.Uint32(data)
	want := p.paint(n)
	all := [][]byte{data, f.Planes[1].Data}
	if len(all[0])+len(all[1]) != len(want) {
		return n, fmt.Errorf("%d bytes instead of %d", len(all[0])+len(all[1]), len(want))
	}
	if !bytes.Equal(all[0], want[:len(data)]) || !bytes.Equal(all[1], want[len(data):]) {
		return n, errors.New("torn")
	}
	return n, nil
}
