package picture

import (
	"encoding/binary"
	"image"
	"image/color"

	"vigil/sensors"
)

// toRGB writes img as packed RGB24. Colour pictures of a camera (YCbCr) and grey ones take the short way.
func toRGB(dst []byte, img image.Image) {
	b := img.Bounds()
	switch m := img.(type) {
	case *image.YCbCr:
		for y := range b.Dy() {
			for x := range b.Dx() {
				yi, ci := m.YOffset(b.Min.X+x, b.Min.Y+y), m.COffset(b.Min.X+x, b.Min.Y+y)
				dst[0], dst[1], dst[2] = color.YCbCrToRGB(m.Y[yi], m.Cb[ci], m.Cr[ci])
				dst = dst[3:]
			}
		}
	case *image.Gray:
		for y := range b.Dy() {
			for _, v := range m.Pix[y*m.Stride:][:b.Dx()] {
				dst[0], dst[1], dst[2] = v, v, v
				dst = dst[3:]
			}
		}
	default:
		for y := range b.Dy() {
			for x := range b.Dx() {
				r, g, bl, _ := img.At(b.Min.X+x, b.Min.Y+y).RGBA()
				dst[0], dst[1], dst[2] = byte(r>>8), byte(g>>8), byte(bl>>8)
				dst = dst[3:]
			}
		}
	}
}

// orientation returns the EXIF orientation (1..8) of a JPEG, 1 if it has none. Layout: CIPA DC-008 (Exif 2.32), sections
// 4.5 and 4.6.4, tag 0x0112.
func orientation(data []byte) int {
	for p := 2; p+4 <= len(data) && data[p] == 0xff; {
		marker, size := data[p+1], int(binary.BigEndian.Uint16(data[p+2:]))
		if marker == 0xda || size < 2 || p+2+size > len(data) {
			break
		}
		if body := data[p+4 : p+2+size]; marker == 0xe1 && len(body) > 14 && string(body[:6]) == "Exif\x00\x00" {
			return tiffOrientation(body[6:])
		}
		p += 2 + size
	}
	return 1
}

func tiffOrientation(t []byte) int {
	var order binary.ByteOrder = binary.LittleEndian
	if t[0] == 'M' {
		order = binary.BigEndian
	}
	first := int64(order.Uint32(t[4:]))
	if first+2 > int64(len(t)) {
		return 1
	}
	entries := t[first:]
	for i := range int(order.Uint16(entries)) {
		e := 2 + 12*i
		if e+12 > len(entries) {
			break
		}
		if order.Uint16(entries[e:]) == 0x0112 {
			if o := int(order.Uint16(entries[e+8:])); o >= 1 && o <= 8 {
				return o
			}
		}
	}
	return 1
}

// orient turns the pixels as the EXIF orientation says and returns them with their new size. The frame's buffer holds
// the result; a scratch copy lives for the call.
func orient(f *sensors.Frame, pix []byte, w, h, o int) ([]byte, int, int) {
	src := append([]byte(nil), pix...)
	ow, oh := w, h
	if o >= 5 {
		ow, oh = h, w
	}
	dst := f.Buffer()[:len(src)]
	for y := range oh {
		for x := range ow {
			sx, sy := x, y
			if o >= 5 { // rows and columns change places
				sx, sy = y, x
			}
			if o == 2 || o == 3 || o == 7 || o == 8 {
				sx = w - 1 - sx
			}
			if o == 3 || o == 4 || o == 6 || o == 7 {
				sy = h - 1 - sy
			}
			copy(dst[3*(y*ow+x):][:3], src[3*(sy*w+sx):])
		}
	}
	clear(src)
	return dst, ow, oh
}
