package picture

import (
	"image"
	"image/color"
	"math/rand/v2"
	"testing"
)

// Every value of a pixel, every way to share chroma, and parts of pictures that begin anywhere are as Go's colours have them.
func TestConversionIsTheStandardOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, ratio := range []image.YCbCrSubsampleRatio{
		image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420,
		image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410,
	} {
		for range 50 {
			w, h := 1+r.IntN(40), 1+r.IntN(10)
			whole := image.NewYCbCr(image.Rect(r.IntN(4), r.IntN(4), 4+w, 4+h), ratio)
			for _, p := range [][]byte{whole.Y, whole.Cb, whole.Cr} {
				for i := range p {
					p[i] = byte(r.Uint32())
				}
			}
			b := whole.Bounds()
			part := whole.SubImage(image.Rect(b.Min.X+r.IntN(b.Dx()), b.Min.Y+r.IntN(b.Dy()), b.Max.X, b.Max.Y)).(*image.YCbCr)
			b = part.Bounds()
			got := make([]byte, 3*b.Dx()*b.Dy())
			toRGB(got, part)
			for y := b.Min.Y; y < b.Max.Y; y++ {
				for x := b.Min.X; x < b.Max.X; x++ {
					c := part.YCbCrAt(x, y)
					i := 3 * ((y-b.Min.Y)*b.Dx() + x - b.Min.X)
					r, g, bl := color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
					if got[i] != r || got[i+1] != g || got[i+2] != bl {
						t.Fatalf("%v %v: pixel %d,%d is %v, want %v %v %v", ratio, b, x, y, got[i:i+3], r, g, bl)
					}
				}
			}
		}
	}
}
