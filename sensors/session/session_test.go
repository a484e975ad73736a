package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"vigil/sensors"
)

// plain keeps keys as they are, bound to the id.
type plain struct{}

func (plain) Seal(key []byte, id string) ([]byte, error) { return append([]byte(id), key...), nil }

func (plain) Open(sealed []byte, id string) ([]byte, error) {
	key, ok := bytes.CutPrefix(bytes.Clone(sealed), []byte(id))
	if !ok {
		return nil, errors.New("a key of another session")
	}
	return key, nil
}

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func header() Header {
	return Header{
		Sensor: "door", Driver: "replay", Modality: "face", Created: made, Expires: made.Add(time.Hour), Consent: "A. Tester: to be recorded",
	}
}

// pictures are frames of every format, with gaps in number and time.
func pictures() []*sensors.Frame {
	var list []*sensors.Frame
	for i, format := range []sensors.Format{sensors.Gray8, sensors.RGB24, sensors.NV12, sensors.YUYV, sensors.MJPEG} {
		f := &sensors.Frame{
			Seq: uint64(10 * (i + 1)), Captured: made.Add(time.Duration(i*i) * 3 * time.Millisecond), Width: 6, Height: 4, Format: format,
			FullRange: i%2 == 0,
		}
		stride := 6*3 + 2
		f.Planes[0] = sensors.Plane{Data: bytes.Repeat([]byte{byte(i), 200, 3}, stride*4/3+1)[:stride*4], StrideBytes: stride}
		if format == sensors.NV12 {
			f.Planes[1] = sensors.Plane{Data: bytes.Repeat([]byte{9, 8}, 12), StrideBytes: 12}
		}
		list = append(list, f)
	}
	return list
}

func record(t testing.TB, h Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, h, plain{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range pictures() {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.vsession")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, data []byte, o Options) *Source {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return made }
	}
	s, err := Open(save(t, data), plain{}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil || s.pool.InUse() != 0 {
			t.Errorf("%v, %d frames held", err, s.pool.InUse())
		}
	})
	return s
}

func TestBitForBitWithItsTiming(t *testing.T) {
	s := open(t, record(t, header()), Options{})
	if h := s.Header(); h.Sensor != "door" || !h.Expires.Equal(made.Add(time.Hour)) || h.Consent != header().Consent {
		t.Errorf("%+v", h)
	}
	var start time.Time
	for i, want := range pictures() {
		f, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			start = f.Captured
		}
		if f.Seq != want.Seq || f.Width != want.Width || f.Height != want.Height || f.Format != want.Format || f.FullRange != want.FullRange ||
			!reflect.DeepEqual(f.Planes, want.Planes) && !same(f, want) || f.Sensor != "door" {
			t.Errorf("frame %d differs", i)
		}
		if since := want.Captured.Sub(made); f.Captured.Sub(start) < since {
			t.Errorf("frame %d came after %v, was recorded after %v", i, f.Captured.Sub(start), since)
		}
		f.Release()
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func same(a, b *sensors.Frame) bool {
	for i := range a.Planes {
		if !bytes.Equal(a.Planes[i].Data, b.Planes[i].Data) || a.Planes[i].StrideBytes != b.Planes[i].StrideBytes {
			return false
		}
	}
	return true
}

// all reads every frame.
func all(data []byte, now time.Time) (frames int, err error) {
	r, err := NewReader(bytes.NewReader(data), plain{}, now)
	if err != nil {
		return 0, err
	}
	for {
		if _, err := r.next(); err != nil {
			return frames, err
		}
		frames++
	}
}

// TestEveryCut: a file cut anywhere gives all whole frames before the cut, and is never taken for a whole one.
func TestEveryCut(t *testing.T) {
	data := record(t, header())
	var ends []int // of segments
	at := 16 + int(le.Uint32(data[12:]))
	body := at
	for at < len(data) {
		at += 4 + int(le.Uint32(data[at:]))
		ends = append(ends, at)
	}
	for n := range len(data) {
		whole := 0
		for _, e := range ends[:len(ends)-1] {
			if e <= n {
				whole++
			}
		}
		got, err := all(data[:n], made)
		switch {
		case n < body && !errors.Is(err, ErrFormat), n >= body && (got != whole || !errors.Is(err, io.ErrUnexpectedEOF)):
			t.Fatalf("cut at %d: %d frames of %d, %v", n, got, whole, err)
		}
	}
	if got, err := all(data, made); got != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("uncut: %d frames, %v", got, err)
	}
}

// TestEveryChange: no byte can be changed, no segment be left out, repeated or exchanged.
func TestEveryChange(t *testing.T) {
	data := record(t, header())
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if got, err := all(bad, made); errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("byte %d changed: %d frames and a good end", i, got)
		}
	}
	body := 16 + int(le.Uint32(data[12:]))
	first := body + 4 + int(le.Uint32(data[body:]))
	for name, bad := range map[string][]byte{
		"left out": append(bytes.Clone(data[:body]), data[first:]...),
		"repeated": append(bytes.Clone(data[:first]), data[body:]...),
	} {
		if _, err := all(bad, made); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if bytes.Contains(data, bytes.Repeat([]byte{1, 200, 3}, 5)) {
		t.Error("pixels are in the file in clear")
	}
}

func TestConsentAndExpiry(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Header)
		want   error
	}{
		"no consent": {func(h *Header) { h.Consent = "  " }, ErrNoConsent},
		"too long":   {func(h *Header) { h.Consent = strings.Repeat("x", 2000) }, ErrFormat},
		"no expiry":  {func(h *Header) { h.Expires = time.Time{} }, ErrFormat},
		"years":      {func(h *Header) { h.Expires = made.AddDate(3, 0, 0) }, ErrFormat},
		"no sensor":  {func(h *Header) { h.Sensor = "" }, ErrFormat},
	} {
		h := header()
		c.change(&h)
		if _, err := NewWriter(io.Discard, h, plain{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	data := record(t, header())
	if _, err := all(data, made.Add(time.Hour)); !errors.Is(err, ErrExpired) {
		t.Errorf("an expired session: %v", err)
	}
	now := made
	s := open(t, data, Options{Step: true, Now: func() time.Time { return now }})
	f, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	now = made.Add(2 * time.Hour)
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrExpired) {
		t.Errorf("expired while it was played: %v", err)
	}
}

func TestCloseWakesNext(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, header(), plain{})
	if err != nil {
		t.Fatal(err)
	}
	f := pictures()[0]
	for range 2 {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		f.Captured = f.Captured.Add(time.Hour)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	s := open(t, b.Bytes(), Options{})
	if f, err = s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Release()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frame that is due in an hour: %v", err)
	}
	woken := make(chan error)
	go func() { _, err := s.Next(t.Context()); woken <- err }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func FuzzReader(f *testing.F) {
	data := record(f, header())
	f.Add(data)
	f.Add(data[:len(data)-20])
	f.Add(data[:100])
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := all(data, made)
		if err == nil || got > len(data)/(4+frameHeader) {
			t.Fatalf("%d frames of %d bytes, %v", got, len(data), err)
		}
	})
}

// FuzzFrame is about what lies behind the encryption.
func FuzzFrame(f *testing.F) {
	for _, p := range pictures() {
		f.Add(appendFrame(nil, p, time.Second))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseFrame(b); err == nil {
			again := appendFrame(nil, &sensors.Frame{
				Seq: r.seq, Captured: r.captured, Width: r.width, Height: r.height, Format: r.format, FullRange: r.fullRange, Planes: r.planes,
			}, r.since)
			if len(again) != len(b) || !bytes.Equal(again[41:], b[41:]) {
				t.Fatal("it does not come back as it was")
			}
		}
	})
}
