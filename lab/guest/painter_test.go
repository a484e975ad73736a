package main

import (
	"slices"
	"testing"

	"vigil/sensors"
)

// frameOf is a picture as the driver would hand it over.
func frameOf(f sensors.Format, data []byte) *sensors.Frame {
	fr := &sensors.Frame{Format: f, Width: uvcWidth, Height: uvcHeight}
	luma := len(data)
	if f == sensors.NV12 {
		luma = uvcWidth * uvcHeight
	}
	fr.Planes[0].Data, fr.Planes[1].Data = data[:luma], data[luma:]
	return fr
}

func TestAPictureIsWholeOrNot(t *testing.T) {
	for _, f := range []sensors.Format{sensors.MJPEG, sensors.YUYV, sensors.NV12, sensors.Gray8} {
		p := newPainter(f)
		old := slices.Clone(p.paint(6))
		good := slices.Clone(p.paint(7))
		if n, err := p.read(frameOf(f, good)); n != 7 || err != nil {
			t.Errorf("%v: whole picture: %d, %v", f, n, err)
		}
		for name, spoil := range map[string]func(d []byte) []byte{
			"its end is of the picture before": func(d []byte) []byte { return append(d[:len(d)/2], old[len(d)/2:]...) },
			"one byte is wrong":                func(d []byte) []byte { d[len(d)-1] ^= 1; return d },
			"one byte is missing":              func(d []byte) []byte { return d[:len(d)-1] },
			"another number":                   func(d []byte) []byte { d[6]++; return d }, // of a JPEG; in the others a byte like all
		} {
			if _, err := p.read(frameOf(f, spoil(slices.Clone(good)))); err == nil {
				t.Errorf("%v: %s, and it passes", f, name)
			}
		}
	}
}

func TestMissingPicturesAreCounted(t *testing.T) {
	p := newPainter(sensors.Gray8)
	c := counter{painter: newPainter(sensors.Gray8)}
	for _, n := range []uint32{3, 4, 7, 8} {
		if err := c.look(frameOf(sensors.Gray8, slices.Clone(p.paint(n)))); err != nil {
			t.Fatal(err)
		}
	}
	if c.missing != 2 || c.torn != 0 || c.err == nil {
		t.Errorf("%d missing, %d torn, %v", c.missing, c.torn, c.err)
	}
}

func TestTornAndStaleFramesOfVivid(t *testing.T) {
	row := func(start byte) []byte {
		r := make([]byte, 640)
		for i := range r {
			r[i] = start + byte(i)
		}
		return r
	}
	picture := func(start byte) *sensors.Frame {
		f := &sensors.Frame{Width: 640, Height: 360}
		f.Planes[0] = sensors.Plane{Data: slices.Repeat(row(start), 360), StrideBytes: 640}
		return f
	}
	var c checker
	torn := picture(3)
	copy(torn.Planes[0].Data[640*200:], picture(2).Planes[0].Data[640*200:])
	for _, f := range []*sensors.Frame{picture(1), picture(2), torn, picture(4), picture(4)} {
		if err := c.look(f); err != nil {
			t.Fatal(err)
		}
	}
	if c.torn != 1 || c.stale != 1 {
		t.Errorf("%d torn, %d stale, want one each", c.torn, c.stale)
	}
	if err := c.look(&sensors.Frame{Width: 320, Height: 180}); err == nil {
		t.Error("a picture of another size passes")
	}
}
