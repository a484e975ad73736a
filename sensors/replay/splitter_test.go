package replay

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"io"
	"testing"
)

// still makes a JPEG of one colour.
func still(t testing.TB, w, h int, v uint8) []byte {
	t.Helper()
	m := image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
	for i := range m.Y {
		m.Y[i] = v
	}
	for i := range m.Cb {
		m.Cb[i], m.Cr[i] = 128, 128
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withThumbnail puts a whole JPEG into an APP1 segment of another.
func withThumbnail(data, thumb []byte) []byte {
	n := len(thumb) + 2
	out := append([]byte{0xff, 0xd8, 0xff, 0xe1, byte(n >> 8), byte(n)}, thumb...)
	return append(out, data[2:]...)
}

// restarts is a picture in form only: a scan with stuffed bytes, restart markers and fill bytes.
var restarts = []byte{
	0xff, 0xd8, 0xff, 0xff, 0xdd, 0, 4, 0, 1, // a fill byte before the restart interval
	0xff, 0xda, 0, 3, 9, // scan header
	1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd7, 5, 0xff, 0xff, // data, stuffing, restarts, a fill byte
	0xd9,
}

// twoScans is a progressive picture in form only.
var twoScans = []byte{
	0xff, 0xd8, 0xff, 0xda, 0, 3, 9, 1, 2, 0xff, 0xc4, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 7, 0xff, 0xd9,
}

func TestSplitter(t *testing.T) {
	a, b := still(t, 16, 16, 50), still(t, 24, 8, 200)
	thumb := withThumbnail(a, b)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name string
		data []byte
		want []any // a picture, or an error
	}{
		{"empty", nil, nil},
		{"two", join(a, b), []any{a, b}},
		{"thumbnail in a header", join(thumb, b), []any{thumb, b}},
		{"restart markers", join(restarts, a), []any{restarts, a}},
		{"two scans", join(twoScans, a), []any{twoScans, a}},
		{"junk before, between and behind", join([]byte("abc"), a, []byte{0, 0xff, 0, 0xff}, b, []byte("\r\n")), []any{errJunk, a, errJunk, b, errJunk}},
		{"only junk", []byte("no picture at all"), []any{errJunk}},
		{"half a start marker", []byte{0xff}, []any{errJunk}},
		{"fill byte before a start", join(a, []byte{0xff}, b), []any{a, errJunk, b}},
		{"cut off in the scan, then a good one", join(a[:len(a)-20], b, a), []any{errNoEOI, b, a}},
		{"cut off in a scan header", join(twoScans[:5], b, a), []any{errNoEOI, b, a}},
		{"cut off one byte before the scan", join(twoScans[:6], b, a), []any{errNoEOI, b, a}},
		{"cut off before a length", join(a[:4], b, a), []any{errNoEOI, b, a}},
		{"cut off before the end marker", join(a[:len(a)-2], b), []any{errNoEOI, b}},
		{"cut off behind the start", join(a[:2], b), []any{errNoEOI, b}},
		{"cut off at the end of the stream", join(a, b[:len(b)-1]), []any{a, errNoEOI}},
		{"cut off in a header at the end", join(a, b[:5]), []any{a, errNoEOI}},
		{"start only", a[:2], []any{errNoEOI}},
	} {
		s := newSplitter(bytes.NewReader(c.data))
		for i, w := range append(c.want, io.EOF, io.EOF) {
			got, err := s.next()
			switch w := w.(type) {
			case []byte:
				if err != nil || !bytes.Equal(got, w) {
					t.Fatalf("%s, %d: error %v, %d bytes, want a picture of %d", c.name, i, err, len(got), len(w))
				}
			case error:
				if !errors.Is(err, w) {
					t.Fatalf("%s, %d: %v (%d bytes), want %v", c.name, i, err, len(got), w)
				}
			}
		}
	}
}

func TestSplitterGoesOnBehindDamage(t *testing.T) {
	a, b := still(t, 16, 16, 50), still(t, 24, 8, 200)
	for cut := 2; cut < len(a)-2; cut++ { // wherever a picture ends, a later one is found again
		s := newSplitter(bytes.NewReader(bytes.Join([][]byte{a[:cut], b, b, b}, nil)))
		found := 0
		for {
			got, err := s.next()
			if err == io.EOF {
				break
			}
			if err == nil && bytes.Equal(got, b) {
				found++
			}
		}
		if found < 1 {
			t.Fatalf("cut at %d of %d: no later picture was found", cut, len(a))
		}
	}
}

type failing struct{ r io.Reader }

var errBus = errors.New("input/output error")

func (f failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = errBus
	}
	return n, err
}

func TestSplitterReportsReadErrors(t *testing.T) {
	a := still(t, 16, 16, 50)
	for _, cut := range []int{0, 1, 2, 10, len(a) - 20, len(a) - 1} {
		if _, err := newSplitter(failing{bytes.NewReader(a[:cut])}).next(); !errors.Is(err, errBus) {
			t.Errorf("after %d bytes: %v, want %v", cut, err, errBus)
		}
	}
}

// FuzzSplitter: it ends, gives back whole pictures only, and never more bytes than it was given.
func FuzzSplitter(f *testing.F) {
	a, b := still(f, 16, 16, 50), still(f, 24, 8, 200)
	f.Add(append(append([]byte{}, a...), b...))
	f.Add(withThumbnail(a, b))
	f.Add(append(append([]byte{}, a[:len(a)/2]...), b...))
	f.Add(restarts)
	f.Add(twoScans)
	f.Add([]byte("junk"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newSplitter(bytes.NewReader(data))
		total := 0
		for calls := 0; ; calls++ {
			if calls > len(data)+2 {
				t.Fatal("it does not end")
			}
			got, err := s.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				continue
			}
			total += len(got)
			if !bytes.HasPrefix(got, []byte{0xff, 0xd8}) || !bytes.HasSuffix(got, []byte{0xff, 0xd9}) || total > len(data) {
				t.Fatalf("%d bytes from %d: % x", len(got), len(data), got)
			}
		}
	})
}
