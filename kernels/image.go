package kernels

import "fmt"

// Format is the layout of the pixels of an Image.
type Format uint8

// The layouts that kernels read. Sizes are in bytes per row of Width pixels.
const (
	Gray8 Format = iota + 1 // one plane, Width bytes
	RGB24                   // one plane, 3*Width bytes, R first
	NV12                    // plane 0: Y, Width bytes; plane 1: interleaved U,V at half height, Width bytes (rounded up to even)
	YUYV                    // one plane, Y0 U Y1 V, 2*Width bytes (Width rounded up to even)
)

// String returns the V4L2-style name of the format.
func (f Format) String() string {
	switch f {
	case Gray8:
		return "Gray8"
	case RGB24:
		return "RGB24"
	case NV12:
		return "NV12"
	case YUYV:
		return "YUYV"
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// Plane is one plane of pixels. Data belongs to somebody else; kernels only read it.
type Plane struct {
	Data        []byte
	StrideBytes int // distance from one row to the next
}

// Image is a picture somewhere in memory. It owns nothing.
type Image struct {
	Format        Format
	Width, Height int // pixels
	Planes        [2]Plane
	FullRange     bool // luma spans 0..255 (JPEG) instead of 16..235 (BT.601 video); YUV formats only
}

// Check reports whether every pixel the format promises lies inside the planes.
func (im *Image) Check() error {
	if im.Width <= 0 || im.Height <= 0 {
		return fmt.Errorf("picture of %dx%d pixels: both sides must be positive", im.Width, im.Height)
	}
	if im.Width > len(im.Planes[0].Data) { // every format has a byte a pixel at least; the sums below cannot overflow
		return fmt.Errorf("%v plane 0: %d bytes are too few for rows of %d pixels", im.Format, len(im.Planes[0].Data), im.Width)
	}
	even := (im.Width + 1) &^ 1
	switch im.Format {
	case Gray8:
		return im.checkPlane(0, im.Width, im.Height)
	case RGB24:
		return im.checkPlane(0, 3*im.Width, im.Height)
	case YUYV:
		return im.checkPlane(0, 2*even, im.Height)
	case NV12:
		if err := im.checkPlane(0, im.Width, im.Height); err != nil {
			return err
		}
		return im.checkPlane(1, even, (im.Height+1)/2)
	}
	return fmt.Errorf("pixel format %v cannot be read by a kernel: convert it first", im.Format)
}

func (im *Image) checkPlane(i, rowBytes, rows int) error {
	p := im.Planes[i]
	if p.StrideBytes < rowBytes {
		return fmt.Errorf("%v plane %d: stride of %d bytes is shorter than a row of %d", im.Format, i, p.StrideBytes, rowBytes)
	}
	if len(p.Data) < rowBytes || (len(p.Data)-rowBytes)/p.StrideBytes < rows-1 {
		return fmt.Errorf("%v plane %d: %d bytes do not hold %d rows of %d, %d apart", im.Format, i, len(p.Data), rows, rowBytes, p.StrideBytes)
	}
	return nil
}

// Row writes row y as RGB24 into dst (3*Width bytes) and returns it; for RGB24 images it returns the row in place and
// does not touch dst.
func (im *Image) Row(dst []byte, y int) []byte {
	w := im.Width
	p := im.Planes[0]
	switch im.Format {
	case RGB24:
		return p.Data[y*p.StrideBytes:][:3*w]
	case Gray8:
		row := p.Data[y*p.StrideBytes:][:w]
		dst = dst[:3*w]
		for x, v := range row {
			dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
		}
	case NV12:
		luma := p.Data[y*p.StrideBytes:][:w]
		c := im.Planes[1]
		chroma := c.Data[(y/2)*c.StrideBytes:][:(w+1)&^1]
		dst = dst[:3*w]
		for x, v := range luma {
			i := x &^ 1
			dst[3*x], dst[3*x+1], dst[3*x+2] = im.rgb(v, chroma[i], chroma[i+1])
		}
	case YUYV:
		row := p.Data[y*p.StrideBytes:][:2*((w+1)&^1)]
		dst = dst[:3*w]
		for x := range w {
			i := 4 * (x / 2)
			dst[3*x], dst[3*x+1], dst[3*x+2] = im.rgb(row[2*x], row[i+1], row[i+3])
		}
	}
	return dst
}

// at returns the RGB value of one pixel inside the image.
func (im *Image) at(x, y int) (r, g, b uint8) {
	p := im.Planes[0]
	switch im.Format {
	case RGB24:
		px := p.Data[y*p.StrideBytes+3*x:][:3]
		return px[0], px[1], px[2]
	case Gray8:
		v := p.Data[y*p.StrideBytes+x]
		return v, v, v
	case NV12:
		c := im.Planes[1]
		uv := c.Data[(y/2)*c.StrideBytes+x&^1:][:2]
		return im.rgb(p.Data[y*p.StrideBytes+x], uv[0], uv[1])
	case YUYV:
		row := p.Data[y*p.StrideBytes+4*(x/2):][:4]
		return im.rgb(row[2*(x&1)], row[1], row[3])
	}
	return 0, 0, 0
}

// rgb converts one BT.601 sample. Coefficients: ITU-R BT.601-7 section 2.5, in 16.16 fixed point; full range as in
// ITU-T T.871 (JFIF), limited range with luma scaled by 255/219 and chroma by 255/224.
func (im *Image) rgb(y, u, v uint8) (r, g, b uint8) {
	d, e := int32(u)-128, int32(v)-128
	if im.FullRange {
		c := int32(y)<<16 + 1<<15
		return clamp8((c + 91881*e) >> 16), clamp8((c - 22554*d - 46802*e) >> 16), clamp8((c + 116130*d) >> 16)
	}
	c := (int32(y)-16)*76309 + 1<<15
	return clamp8((c + 104597*e) >> 16), clamp8((c - 25675*d - 53279*e) >> 16), clamp8((c + 132201*d) >> 16)
}

func clamp8(v int32) uint8 { return uint8(min(max(v, 0), 255)) }
