package picture

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"vigil/sensors"
	"vigil/sensors/picture/turbo"
)

// realPictures returns JPEG pictures of the data folder: portraits and frames of a camera. None without the data.
func realPictures(t testing.TB, n int) (list [][]byte) {
	t.Helper()
	dir := os.Getenv("VIGIL_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "faces", "lfw", "C*", "*.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths[:min(n, len(paths))] {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, data)
	}
	clips, err := filepath.Glob(filepath.Join(dir, "clips", "P1", "*.mjpeg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range clips[:min(n, len(clips))] {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if end := bytes.Index(data, []byte{0xff, 0xd9}); end > 0 {
			list = append(list, data[:end+2])
		}
	}
	return list
}

// needReal skips without pictures.
func needReal(t testing.TB, n int) [][]byte {
	t.Helper()
	list := realPictures(t, n)
	if len(list) == 0 {
		t.Skip("no test data: point VIGIL_DATA to the folder of models and pictures")
	}
	return list
}

// without drops the segments of one kind that stand before the first scan.
func without(data []byte, mark byte) []byte {
	out := bytes.Clone(data[:2])
	for p := 2; p+4 <= len(data); {
		size := 2 + int(data[p+2])<<8 + int(data[p+3])
		if data[p+1] == markSOS {
			return append(out, data[p:]...)
		}
		if data[p+1] != mark {
			out = append(out, data[p:p+size]...)
		}
		p += size
	}
	return out
}

// pixels decodes by Go alone.
func pixels(t *testing.T, data []byte) []byte {
	t.Helper()
	img, err := decodeJPEG(data)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 3*img.Bounds().Dx()*img.Bounds().Dy())
	toRGB(out, img)
	return out
}

// TestMotionJPEGWithoutTables: a camera's frame that leaves the typical Huffman tables out is the same picture, by either decoder.
func TestMotionJPEGWithoutTables(t *testing.T) {
	whole := asJPEG(t, scene(96, 64)) // by Go's encoder, whose tables are the typical ones
	bare := without(whole, markDHT)
	if len(bare) >= len(whole) {
		t.Fatal("there was no table to drop")
	}
	if _, err := jpeg.Decode(bytes.NewReader(bare)); err == nil {
		t.Log("Go's decoder knows the typical tables by now")
	}
	if !bytes.Equal(pixels(t, whole), pixels(t, bare)) {
		t.Error("without its tables it is another picture")
	}
	f, err := Decode(t.Context(), sensors.NewPool(1), bare)
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	if turbo.Available() && !turbo.Decode(make([]byte, 3*96*64), 96, 64, bare) {
		t.Error("libjpeg-turbo does not take it")
	}
	mustRefuse(t, "without quantisation tables", without(whole, markDQT), ErrBroken)
}

// TestDamagedPictures: real pictures that are cut, overwritten, spliced with garbage, or have their tables changed give an error that
// names the damage, or a whole picture where nothing can be noticed, and never lose a frame. The verdict is the same with
// libjpeg-turbo and without.
func TestDamagedPictures(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	garbage := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	verdict := func(name string, data []byte, must bool) {
		t.Helper()
		pool := sensors.NewPool(1)
		f, err := Decode(t.Context(), pool, data)
		if err == nil {
			if len(f.Planes[0].Data) != 3*f.Width*f.Height {
				t.Errorf("%s: %d bytes of %dx%d", name, len(f.Planes[0].Data), f.Width, f.Height)
			}
			f.Release()
		}
		if pool.InUse() != 0 {
			t.Errorf("%s: a frame was lost", name)
		}
		if err == nil && must {
			t.Errorf("%s: taken", name)
		}
		if err != nil && !errors.Is(err, ErrBroken) && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrEmpty) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, data := range needReal(t, 6) {
		verdict("whole", data, false)
		for i := range 25 {
			verdict("cut", data[:len(data)*i/25], true)
		}
		for range 40 {
			at, n := 2+r.IntN(len(data)-2), 1+r.IntN(64)
			spoilt := bytes.Clone(data)
			copy(spoilt[at:], garbage(n))
			verdict("overwritten", spoilt, false)
			verdict("garbage in between", bytes.Join([][]byte{data[:at], garbage(n), data[at:]}, nil), false)
			verdict("a piece missing", append(bytes.Clone(data[:at]), data[min(len(data), at+n):]...), false)
		}
		verdict("without quantisation tables", without(data, markDQT), true)
		verdict("without a frame header", without(data, markSOF0), true)
		verdict("garbage behind", append(bytes.Clone(data), garbage(5000)...), false)
		verdict("garbage only", append([]byte{0xff, 0xd8}, garbage(5000)...), true)
	}
}

// bomb is a progressive JPEG in which some scans of a hundred bytes say nothing about every block.
func bomb(w, h, scans int) []byte {
	b := append([]byte{0xff, 0xd8, 0xff, 0xdb, 0, 67, 0}, bytes.Repeat([]byte{1}, 64)...)
	b = append(b, 0xff, 0xc2, 0, 17, 8, byte(h>>8), byte(h), byte(w>>8), byte(w), 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
	one := append([]byte{1}, make([]byte, 15)...) // one code, of one bit
	b = append(append(append(b, 0xff, 0xc4, 0, 20, 0x00), one...), 0)
	b = append(append(append(b, 0xff, 0xc4, 0, 20, 0x10), one...), 0xe0) // the end of a band for 2^14 blocks and more
	for i := range scans {
		b = append(b, 0xff, 0xda, 0, 8, 1, byte(1+i%3), 0x00, 1, 63, 0x00)
		blocks, bits, n := ((w+7)/8)*((h+7)/8), uint32(0), 0
		put := func(v uint32, count int) {
			for i := count - 1; i >= 0; i-- {
				if bits, n = bits<<1|v>>i&1, n+1; n == 8 {
					if b = append(b, byte(bits)); byte(bits) == 0xff {
						b = append(b, 0)
					}
					bits, n = 0, 0
				}
			}
		}
		for ; blocks > 0; blocks -= 1<<14 + 0x1fff {
			put(0x1fff, 15) // the code 0, and 14 bits
		}
		put(0x7f, (8-n)%8)
	}
	return append(b, 0xff, 0xd9)
}

// TestBombsAreRefused: pictures of few bytes that would cost a decoder much memory or time.
func TestBombsAreRefused(t *testing.T) {
	if f, err := Decode(t.Context(), sensors.NewPool(1), bomb(200, 100, 9)); err != nil { // a small one is a picture
		t.Error(err)
	} else {
		f.Release()
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"49 megapixels, progressive": {bomb(7000, 7000, 1), "MiB to decode"},
		"many scans":                 {bomb(2000, 2000, maxScans+1), "101 scans"},
		"hidden by garbage":          {append([]byte{0xff, 0xd8, 7}, bomb(7000, 7000, 1)[2:]...), "MiB to decode"},
		"by a fill byte":             {append([]byte{0xff, 0xd8, 0xff}, bomb(7000, 7000, 1)[2:]...), "MiB to decode"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		mustRefuse(t, name, c.data, ErrTooLarge)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: took %v", name, d)
		}
		if err := Check(c.data); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestCostOfPNG(t *testing.T) {
	for _, c := range []struct {
		w, h, depth, interlaced int
		ok                      bool
	}{{7000, 7000, 8, 0, true}, {7000, 7000, 16, 0, false}, {5000, 5000, 16, 0, true}, {7000, 7000, 8, 1, false}, {5000, 5000, 8, 1, true}} {
		data := pngHeader(uint32(c.w), uint32(c.h))
		data[24], data[28] = byte(c.depth), byte(c.interlaced)
		if err := checkPNG(data, c.w, c.h); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := checkPNG(nil, 7000, 7000); err != nil {
		t.Error(err)
	}
}

func TestSegments(t *testing.T) {
	colour, grey := asJPEG(t, scene(40, 30)), asJPEG(t, image.NewGray(image.Rect(0, 0, 8, 8)))
	for name, c := range map[string]struct {
		data []byte
		want jpegKind
	}{
		"colour":      {colour, jpegKind{sequential: true, components: 3, samples: 1.5, tables: true, quantised: true, scan: 1}},
		"grey":        {grey, jpegKind{sequential: true, components: 1, samples: 1, tables: true, quantised: true, scan: 1}},
		"bare":        {without(colour, markDHT), jpegKind{sequential: true, components: 3, samples: 1.5, quantised: true, scan: 1}},
		"progressive": {bomb(16, 16, 1), jpegKind{components: 3, samples: 3, tables: true, quantised: true, scan: 1}},
		"nothing":     {[]byte{0xff, 0xd8}, jpegKind{}},
		"no scan":     {colour[:300], jpegKind{}},
		"a length 0":  {append([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 0}, colour[2:]...), jpegKind{}},
		"a restart":   {append([]byte{0xff, 0xd8, 0xff, 0xd0}, colour[2:]...), jpegKind{}},
	} {
		got := segments(c.data)
		if got.scan > 0 {
			got.scan = 1
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzSegments(f *testing.F) {
	f.Add(asJPEG(f, scene(17, 9)))
	f.Add(bomb(40, 40, 3))
	f.Add([]byte{0xff, 0xd8, 0xff, 0xc0, 0, 2})
	for _, data := range realPictures(f, 2) {
		f.Add(data[:min(len(data), 4000)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k := segments(data)
		if k.scan < 0 || k.scan > 0 && (k.scan+4 > len(data) || data[k.scan+1] != markSOS) || k.samples < 0 || k.samples > 255 {
			t.Fatalf("%+v", k)
		}
		if len(data) > 0 {
			_ = checkJPEG(data, 100, 100)
		}
	})
}
