package picture

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vigil/sensors/picture/turbo"
)

// needTurbo skips where the library is not there.
func needTurbo(t testing.TB) {
	t.Helper()
	if !turbo.Available() {
		t.Skip("libjpeg-turbo is not installed (Debian: libturbojpeg0)")
	}
}

// shapes is a picture with smooth parts, edges and noise.
func shapes(w, h int, grey bool) image.Image {
	r := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	rgba, g := image.NewRGBA(image.Rect(0, 0, w, h)), image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			v := uint8(x*255/w/2 + (x/9+y/7)%2*60 + r.IntN(9))
			rgba.SetRGBA(x, y, color.RGBA{v, uint8(y * 200 / h), 255 - v, 255})
			g.SetGray(x, y, color.Gray{v})
		}
	}
	if grey {
		return g
	}
	return rgba
}

// near says how far two pictures lie apart: the mean and the largest difference of a byte.
func near(a, b []byte) (mean float64, most int) {
	for i := range a {
		d := int(a[i]) - int(b[i])
		d = max(d, -d)
		mean += float64(d) / float64(len(a))
		most = max(most, d)
	}
	return mean, most
}

func TestTurboAgreesWithGo(t *testing.T) {
	needTurbo(t)
	var files [][]byte
	for _, grey := range []bool{false, true} {
		for _, size := range [][2]int{{1, 1}, {7, 5}, {16, 16}, {33, 17}, {250, 250}, {640, 480}} {
			var b bytes.Buffer
			if err := jpeg.Encode(&b, shapes(size[0], size[1], grey), &jpeg.Options{Quality: 90}); err != nil {
				t.Fatal(err)
			}
			files = append(files, b.Bytes())
		}
	}
	dir := os.Getenv("VIGIL_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "faces", "lfw", "B*", "*.jpg")) // none without the data
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths[:min(40, len(paths))] {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, data)
	}
	for i, data := range files {
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		w, h := img.Bounds().Dx(), img.Bounds().Dy()
		want, got := make([]byte, 3*w*h), make([]byte, 3*w*h)
		toRGB(want, img)
		if !turbo.Decode(got, w, h, data) {
			t.Fatalf("picture %d of %dx%d is not taken", i, w, h)
		}
		if mean, most := near(got, want); mean > 0.5 || most > 6 {
			t.Errorf("picture %d of %dx%d: bytes differ by %.2f on average and by up to %d", i, w, h, mean, most)
		}
	}
}

// Damage is Go's decoder's to judge, so that the verdict does not depend on what is installed.
func TestTurboLeavesDamage(t *testing.T) {
	needTurbo(t)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, shapes(64, 48, false), nil); err != nil {
		t.Fatal(err)
	}
	good, dst := b.Bytes(), make([]byte, 3*64*48)
	if !turbo.Decode(dst, 64, 48, good) {
		t.Fatal("a good picture is not taken")
	}
	for name, taken := range map[string]bool{
		"nothing":       turbo.Decode(dst, 64, 48, nil),
		"another size":  turbo.Decode(dst, 48, 64, good),
		"too small":     turbo.Decode(dst[:len(dst)-1], 64, 48, good),
		"cut short":     turbo.Decode(dst, 64, 48, good[:len(good)/2]),
		"noise":         turbo.Decode(dst, 64, 48, bytes.Repeat([]byte{0xff, 0xd8, 1}, 99)),
		"a stray byte":  turbo.Decode(dst, 64, 48, append(append(append([]byte{}, good[:len(good)-40]...), 0xff, 0xd9), good[len(good)-40:]...)),
		"without end":   turbo.Decode(dst, 64, 48, good[:len(good)-2]),
		"negative size": turbo.Decode(dst, -64, -48, good),
	} {
		if taken {
			t.Errorf("%s: taken", name)
		}
	}
}
