package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"runtime"
	"testing"
	"time"

	"vigil/sensors"
)

// scene is a picture without symmetry: a gradient with a bright corner.
func scene(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{uint8(255 * x / w), uint8(255 * y / h), 60, 255})
		}
	}
	for y := range h / 4 {
		for x := range w / 4 {
			m.SetNRGBA(x, y, color.NRGBA{250, 250, 250, 255})
		}
	}
	return m
}

func asJPEG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// jpegHeader is a JPEG that claims a size and holds no pixels.
func jpegHeader(w, h int) []byte {
	b := []byte{0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, byte(h >> 8), byte(h), byte(w >> 8), byte(w), 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0}
	return append(b, 0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0, 0xff, 0xd9)
}

// pngHeader is a PNG of 8-bit grey that claims a size and holds no pixels.
func pngHeader(w, h uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
	b = binary.BigEndian.AppendUint32(b, w)
	b = binary.BigEndian.AppendUint32(b, h)
	b = append(b, 8, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
	return append(b, "\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e"...)
}

// mustRefuse asserts the error and that no frame is lost by it.
func mustRefuse(t *testing.T, name string, data []byte, want error) {
	t.Helper()
	pool := sensors.NewPool(1)
	f, err := Decode(t.Context(), pool, data)
	if f != nil || !errors.Is(err, want) {
		t.Errorf("%s: frame %v, error %v, want %v", name, f != nil, err, want)
	}
	if pool.InUse() != 0 {
		t.Errorf("%s: a frame was lost", name)
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := asJPEG(t, scene(40, 30))
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, ErrFormat},
		{"text", []byte("this is no picture"), ErrFormat},
		{"GIF", []byte("GIF89a\x01\x00\x01\x00"), ErrFormat},
		{"zeros", make([]byte, 1000), ErrFormat},
		{"one byte", []byte{0xff}, ErrFormat},
		{"JPEG start only", []byte{0xff, 0xd8}, ErrBroken},
		{"PNG start only", []byte("\x89PNG\r\n\x1a\n"), ErrBroken},
		{"JPEG 0x0", jpegHeader(0, 0), ErrEmpty},
		{"JPEG 0x10", jpegHeader(0, 10), ErrEmpty},
		{"JPEG 10x0", jpegHeader(10, 0), ErrEmpty},
		{"PNG 0x0", pngHeader(0, 0), ErrEmpty},
		{"PNG 10x0", pngHeader(10, 0), ErrEmpty},
		{"PNG negative", pngHeader(1<<31, 10), ErrTooLarge},
		{"JPEG without pixels", jpegHeader(10, 10), ErrBroken},
		{"PNG without pixels", pngHeader(10, 10), ErrBroken},
		{"100 megapixel JPEG", jpegHeader(10000, 10000), ErrTooLarge},
		{"100 megapixel PNG", pngHeader(10000, 10000), ErrTooLarge},
		{"largest PNG", pngHeader(1<<31-1, 1<<31-1), ErrTooLarge},
		{"PNG of one endless row", pngHeader(40e6, 1), ErrTooLarge},
		{"too many bytes", append(whole, make([]byte, MaxBytes)...), ErrTooLarge},
		{"damaged table", bytes.Replace(whole, []byte{0xff, 0xc4}, []byte{0xff, 0xdb}, 1), ErrBroken},
	} {
		mustRefuse(t, c.name, c.data, c.want)
	}
}

func TestDecodeRefusesEveryTruncation(t *testing.T) {
	for name, whole := range map[string][]byte{
		"JPEG": asJPEG(t, scene(96, 64)), "PNG": asPNG(t, scene(96, 64)), "oriented JPEG": withEXIF(asJPEG(t, scene(96, 64)), binary.BigEndian, 6),
	} {
		if _, err := Decode(t.Context(), sensors.NewPool(1), whole); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range 20 {
			data := whole[:len(whole)*i/20]
			pool := sensors.NewPool(1)
			if f, err := Decode(t.Context(), pool, data); err == nil || f != nil || pool.InUse() != 0 {
				t.Errorf("%s cut at %d/20: error %v, %d frames in use", name, i, err, pool.InUse())
			}
		}
	}
	whole := asJPEG(t, scene(96, 64))
	mustRefuse(t, "without its end marker", whole[:len(whole)-2], ErrBroken)
}

// TestHugeHeadersCostNothing: the size is refused from the header, before memory of that size is asked for.
func TestHugeHeadersCostNothing(t *testing.T) {
	for name, data := range map[string][]byte{"JPEG": jpegHeader(65535, 65535), "PNG": pngHeader(100_000, 100_000)} {
		start := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		mustRefuse(t, name, data, ErrTooLarge)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: took %v", name, d)
		}
		if err := Check(data); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: Check says %v", name, err)
		}
	}
}

// withEXIF inserts an APP1 segment with an orientation behind the start marker.
func withEXIF(data []byte, order binary.AppendByteOrder, o uint16) []byte {
	tiff := []byte("MM\x00*")
	if order.String() == "LittleEndian" {
		tiff = []byte("II*\x00")
	}
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	tiff = order.AppendUint16(tiff, 0x010f) // maker, ahead of the orientation
	tiff = order.AppendUint16(tiff, 2)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint32(tiff, 0)
	tiff = order.AppendUint16(tiff, 0x0112)
	tiff = order.AppendUint16(tiff, 3)
	tiff = order.AppendUint32(tiff, 1)
	tiff = order.AppendUint16(tiff, o)
	tiff = append(tiff, 0, 0, 0, 0, 0, 0)
	body := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{0xff, 0xd8, 0xff, 0xe1}, byte((len(body)+2)>>8), byte(len(body)+2))
	return append(append(out, body...), data[2:]...)
}

func pixel(f *sensors.Frame, x, y int) [3]byte {
	p := f.Planes[0]
	return [3]byte(p.Data[y*p.StrideBytes+3*x:][:3])
}

// TestOrientation: where the corner that is top left in the upright scene must be in the file for each value of the tag
// (CIPA DC-008, tag 0x0112), so that it comes out top left.
func TestOrientation(t *testing.T) {
	const w, h = 64, 32
	upright := scene(w, h)
	stored := map[uint16]func(x, y int) (sx, sy int){ // pixel of the upright scene at x,y of the stored picture
		1: func(x, y int) (int, int) { return x, y },
		2: func(x, y int) (int, int) { return w - 1 - x, y },
		3: func(x, y int) (int, int) { return w - 1 - x, h - 1 - y },
		4: func(x, y int) (int, int) { return x, h - 1 - y },
		5: func(x, y int) (int, int) { return y, x },
		6: func(x, y int) (int, int) { return w - 1 - y, x }, // row 0 is the right side, column 0 the top
		7: func(x, y int) (int, int) { return w - 1 - y, h - 1 - x },
		8: func(x, y int) (int, int) { return y, h - 1 - x }, // row 0 is the left side, column 0 the bottom
	}
	for _, order := range []binary.AppendByteOrder{binary.BigEndian, binary.LittleEndian} {
		for o, at := range stored {
			sw, sh := w, h
			if o >= 5 {
				sw, sh = h, w
			}
			m := image.NewNRGBA(image.Rect(0, 0, sw, sh))
			for y := range sh {
				for x := range sw {
					m.Set(x, y, upright.At(at(x, y)))
				}
			}
			f, err := Decode(t.Context(), sensors.NewPool(1), withEXIF(asJPEG(t, m), order, o))
			if err != nil {
				t.Fatal(err)
			}
			if f.Width != w || f.Height != h || f.Planes[0].StrideBytes != 3*w || len(f.Planes[0].Data) != 3*w*h {
				t.Fatalf("orientation %d: %dx%d, want %dx%d", o, f.Width, f.Height, w, h)
			}
			for _, p := range [][2]int{{2, 2}, {60, 4}, {5, 28}, {58, 27}, {40, 12}} {
				c := upright.NRGBAAt(p[0], p[1])
				if got := pixel(f, p[0], p[1]); !close3(got, [3]byte{c.R, c.G, c.B}, 14) {
					t.Errorf("orientation %d (%v): pixel %v is %v, want %v", o, order, p, got, c)
				}
			}
			f.Release()
		}
	}
}

func close3(a, b [3]byte, tolerance int) bool {
	for i := range a {
		if d := int(a[i]) - int(b[i]); d > tolerance || -d > tolerance {
			return false
		}
	}
	return true
}

func TestOrientationIgnoresNonsense(t *testing.T) {
	good := asJPEG(t, scene(16, 8))
	for name, data := range map[string][]byte{
		"none":           good,
		"0":              withEXIF(good, binary.BigEndian, 0),
		"9":              withEXIF(good, binary.BigEndian, 9),
		"offset outside": bytes.Replace(withEXIF(good, binary.BigEndian, 6), []byte("MM\x00*\x00\x00\x00\x08"), []byte("MM\x00*\xff\xff\xff\xff"), 1),
		"offset at end":  bytes.Replace(withEXIF(good, binary.BigEndian, 6), []byte("MM\x00*\x00\x00\x00\x08"), []byte("MM\x00*\x00\x00\x00\x25"), 1),
		"many entries":   bytes.Replace(withEXIF(good, binary.LittleEndian, 9), []byte("II*\x00\x08\x00\x00\x00\x02\x00"), []byte("II*\x00\x08\x00\x00\x00\xff\xff"), 1),
	} {
		f, err := Decode(t.Context(), sensors.NewPool(1), data)
		if err != nil || f.Width != 16 || f.Height != 8 {
			t.Errorf("%s: %v, want 16x8 as it is", name, err)
		}
	}
	if got := orientation(withEXIF(good, binary.BigEndian, 6)); got != 6 {
		t.Errorf("orientation %d, want 6", got)
	}
}

func TestDecodeKinds(t *testing.T) {
	grey, grey16 := image.NewGray(image.Rect(3, 5, 11, 11)), image.NewGray16(image.Rect(0, 0, 8, 6))
	deep := image.NewNRGBA64(image.Rect(0, 0, 8, 6))
	clear := image.NewNRGBA(image.Rect(0, 0, 8, 6))
	pal := image.NewPaletted(image.Rect(0, 0, 8, 6), color.Palette{color.RGBA{1, 2, 3, 255}, color.RGBA{200, 100, 50, 255}})
	for y := range 6 {
		for x := range 8 {
			grey.SetGray(3+x, 5+y, color.Gray{77})
			grey16.SetGray16(x, y, color.Gray16{0x4d12})
			deep.SetNRGBA64(x, y, color.NRGBA64{0x1122, 0x3344, 0x5566, 0xffff})
			clear.SetNRGBA(x, y, color.NRGBA{200, 100, 50, uint8(255 * (x % 2))})
			pal.SetColorIndex(x, y, uint8(x%2))
		}
	}
	for _, c := range []struct {
		name      string
		data      []byte
		even, odd [3]byte // pixels of even and odd columns
	}{
		{"grey JPEG", asJPEG(t, grey), [3]byte{77, 77, 77}, [3]byte{77, 77, 77}},
		{"grey PNG", asPNG(t, grey), [3]byte{77, 77, 77}, [3]byte{77, 77, 77}},
		{"16-bit grey PNG", asPNG(t, grey16), [3]byte{0x4d, 0x4d, 0x4d}, [3]byte{0x4d, 0x4d, 0x4d}},
		{"16-bit PNG", asPNG(t, deep), [3]byte{0x11, 0x33, 0x55}, [3]byte{0x11, 0x33, 0x55}},
		{"PNG with alpha is over black", asPNG(t, clear), [3]byte{}, [3]byte{200, 100, 50}},
		{"palette PNG", asPNG(t, pal), [3]byte{1, 2, 3}, [3]byte{200, 100, 50}},
	} {
		f, err := Decode(t.Context(), sensors.NewPool(1), c.data)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.Format != sensors.RGB24 || f.Width != 8 || f.Height != 6 {
			t.Errorf("%s: %v %dx%d", c.name, f.Format, f.Width, f.Height)
		}
		if a, b := pixel(f, 4, 3), pixel(f, 5, 3); !close3(a, c.even, 1) || !close3(b, c.odd, 1) {
			t.Errorf("%s: columns %v and %v, want %v and %v", c.name, a, b, c.even, c.odd)
		}
	}
}

func TestDecodeColours(t *testing.T) {
	want := scene(64, 48)
	f, err := Decode(t.Context(), sensors.NewPool(1), asJPEG(t, want))
	if err != nil {
		t.Fatal(err)
	}
	for y := 14; y < 48; y++ { // below the bright corner's sharp edge
		for x := 18; x < 64; x++ {
			c := want.NRGBAAt(x, y)
			if got := pixel(f, x, y); !close3(got, [3]byte{c.R, c.G, c.B}, 16) {
				t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, c)
			}
		}
	}
}

func TestDecodeWaitsForAFrame(t *testing.T) {
	pool := sensors.NewPool(1)
	data := asPNG(t, scene(4, 4))
	held, err := Decode(t.Context(), pool, data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Decode(ctx, pool, data); !errors.Is(err, context.Canceled) {
		t.Errorf("all frames held: %v", err)
	}
	held.Release()
	if f, err := Decode(t.Context(), pool, data); err != nil {
		t.Error(err)
	} else {
		f.Release()
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(asJPEG(f, scene(17, 9)))
	f.Add(asJPEG(f, image.NewGray(image.Rect(0, 0, 8, 8))))
	f.Add(withEXIF(asJPEG(f, scene(8, 16)), binary.LittleEndian, 8))
	f.Add(withEXIF(asJPEG(f, scene(8, 16)), binary.BigEndian, 3))
	f.Add(asPNG(f, scene(9, 5)))
	f.Add(asPNG(f, image.NewPaletted(image.Rect(0, 0, 5, 5), color.Palette{color.Black, color.White})))
	f.Add(jpegHeader(10000, 10000))
	f.Add(pngHeader(0, 0))
	f.Add(bomb(60, 40, 4))
	f.Add(without(asJPEG(f, scene(17, 9)), markDHT))
	for _, data := range realPictures(f, 3) {
		f.Add(data)
	}
	pool := sensors.NewPool(1)
	f.Fuzz(func(t *testing.T, data []byte) {
		if w, h, ok := claimed(data); ok && w*h > 1<<20 {
			return // accepted up to the limit, but too slow to fuzz
		}
		frame, err := Decode(context.Background(), pool, data)
		if err != nil {
			if frame != nil || pool.InUse() != 0 {
				t.Fatal("a refused picture kept its frame")
			}
			return
		}
		p := frame.Planes[0]
		if frame.Width <= 0 || frame.Height <= 0 || len(p.Data) != 3*frame.Width*frame.Height || p.StrideBytes != 3*frame.Width {
			t.Fatalf("%dx%d, stride %d, %d bytes", frame.Width, frame.Height, p.StrideBytes, len(p.Data))
		}
		frame.Release()
	})
}

func claimed(data []byte) (w, h int, ok bool) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	return c.Width, c.Height, err == nil
}

func BenchmarkDecodeVGA(b *testing.B) {
	data, pool := asJPEG(b, scene(640, 480)), sensors.NewPool(1)
	b.ReportAllocs()
	for b.Loop() {
		f, err := Decode(context.Background(), pool, data)
		if err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}
