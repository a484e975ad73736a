package picture

import (
	"encoding/binary"
	"image"

	"vigil/sensors"
)

// toRGB writes img as packed RGB24. Colour pictures of a camera (YCbCr) and grey ones take the short way.
func toRGB(dst []byte, img image.Image) {
	b := img.Bounds()
	switch m := img.(type) {
	case *image.YCbCr:
		shift := 0 // pixels that share a chroma sample, as a power of two
		switch m.SubsampleRatio {
		case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
			shift = 1
		case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
			shift = 2
		}
		for y := range b.Dy() {
			yi, ci := m.YOffset(b.Min.X, b.Min.Y+y), m.COffset(b.Min.X, b.Min.Y+y)
			chroma := b.Min.X&(1<<shift-1) + b.Dx() // a picture may begin within a group
			chroma = (chroma-1)>>shift + 1
			rowToRGB(dst[:3*b.Dx()], m.Y[yi:][:b.Dx()], m.Cb[ci:][:chroma], m.Cr[ci:][:chroma], b.Min.X&(1<<shift-1), shift)
			dst = dst[3*b.Dx():]
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

// rowToRGB converts a row as color.YCbCrToRGB does, bit for bit (the formulae of ITU-T T.871 in 16.16 fixed point), with what
// the chroma gives computed once for the pixels that share it. The row begins skip pixels into its first group.
func rowToRGB(dst, luma, cb, cr []byte, skip, shift int) {
	last := 0
	var red, green, blue int32
	for x, v := range luma {
		if group := (x + skip) >> shift; group != last || x == 0 {
			last = group
			d, e := int32(cb[group])-128, int32(cr[group])-128
			red, green, blue = 91881*e, -22554*d-46802*e, 116130*d
		}
		y := int32(v) * 0x10101
		out := dst[3*x:][:3:3]
		out[0], out[1], out[2] = saturate(y+red), saturate(y+green), saturate(y+blue)
	}
}

// saturate is the whole part of a 16.16 number, limited to a byte.
func saturate(v int32) byte {
	if uint32(v)&0xff000000 != 0 {
		v = ^(v >> 31)
		return byte(v)
	}
	return byte(v >> 16)
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
