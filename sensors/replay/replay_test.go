package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"vigil/sensors"
	"vigil/sensors/picture"
)

const wait = 10 * time.Second

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a recording; at the end it is closed and every frame must have been given back and every file closed.
func open(t testing.TB, o Options) *Source {
	t.Helper()
	files := openFiles(t)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if n := s.pool.InUse(); n != 0 {
			t.Errorf("%d frames were not given back", n)
		}
		if n := openFiles(t); n > files {
			t.Errorf("%d files are open, %d before", n, files)
		}
		if _, err := s.Next(context.Background()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Next after Close: %v", err)
		}
	})
	return s
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc to count open files in: %v", err)
	}
	return len(entries)
}

func next(t testing.TB, s *Source) *sensors.Frame {
	t.Helper()
	f, err := s.Next(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// play releases every frame and describes what came until the end, at most limit things.
func play(t *testing.T, s *Source, limit int) (got []string) {
	t.Helper()
	for len(got) < limit {
		f, err := s.Next(bounded(t))
		var skipped *sensors.SkippedError
		switch {
		case errors.As(err, &skipped):
			got = append(got, "skipped "+filepath.Base(skipped.Name))
		case errors.Is(err, io.EOF):
			return append(got, "end")
		case err != nil:
			return append(got, "error: "+err.Error())
		default:
			got = append(got, fmt.Sprintf("%d %s %v %dx%d", f.Seq, filepath.Base(f.Label), f.Format, f.Width, f.Height))
			if f.Sensor != "door" || f.Captured.IsZero() {
				t.Errorf("frame %d is of %q at %v", f.Seq, f.Sensor, f.Captured)
			}
			f.Release()
		}
	}
	return got
}

func expect(t *testing.T, name string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\ngot  %s\nwant %s", name, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func aPNG(t testing.TB, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "c.png", aPNG(t, 6, 4))
	write(t, dir, "a.jpg", still(t, 16, 8, 9))
	write(t, dir, "b.JPEG", still(t, 16, 8, 9)[:200])
	write(t, dir, "notes.txt", []byte("not a picture"))
	if err := os.Mkdir(filepath.Join(dir, "d.png"), 0o700); err != nil { // a folder with a picture's name
		t.Fatal(err)
	}
	write(t, dir, "e.png", nil)
	s := open(t, Options{Name: "door", Path: dir, Step: true})
	expect(t, "folder", play(t, s, 100), "1 a.jpg RGB24 16x8", "skipped b.JPEG", "2 c.png RGB24 6x4", "skipped d.png", "skipped e.png", "end")
	if s.Skipped() != 3 {
		t.Errorf("%d skipped, want 3", s.Skipped())
	}
	if _, err := s.Next(bounded(t)); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v", err)
	}
	s = open(t, Options{Name: "door", Path: dir, Step: true, Loop: true})
	got := play(t, s, 8)
	expect(t, "loop", got[5:], "3 a.jpg RGB24 16x8", "skipped b.JPEG", "4 c.png RGB24 6x4")
}

func TestFolderThatGoesAway(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "a.png", aPNG(t, 6, 4))
	s := open(t, Options{Name: "door", Path: dir, Step: true, Loop: true})
	next(t, s).Release()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := s.Next(bounded(t))
	var skipped *sensors.SkippedError
	if !errors.As(err, &skipped) || skipped.Name != path || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want that %s was skipped because it is gone", err, path)
	}
}

func TestSinglePicture(t *testing.T) {
	s := open(t, Options{Name: "door", Path: write(t, t.TempDir(), "me.jpg", still(t, 16, 8, 9)), Step: true})
	expect(t, "picture", play(t, s, 9), "1 me.jpg RGB24 16x8", "end")
}

func TestLoopWithoutOneGoodPictureEnds(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"broken.mjpeg": []byte("nothing"), "empty.mjpeg": nil, "empty.nv12": nil, "empty.y4m": []byte("YUV4MPEG2 W2 H2\n")} {
		s := open(t, Options{Name: "door", Path: write(t, dir, name, data), Step: true, Loop: true, Width: 2, Height: 2})
		if got := play(t, s, 5); got[len(got)-1] != "end" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLoopOverAFileThatWasEmptied: it had pictures in the first round and has none now.
func TestLoopOverAFileThatWasEmptied(t *testing.T) {
	path := write(t, t.TempDir(), "a.nv12", make([]byte, 6))
	s := open(t, Options{Name: "door", Path: path, Step: true, Loop: true, Width: 2, Height: 2})
	next(t, s).Release()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	expect(t, "emptied", play(t, s, 5), "end")
}

func TestMJPEG(t *testing.T) {
	a, b := still(t, 16, 8, 9), still(t, 8, 8, 9)
	data := bytes.Join([][]byte{a, withThumbnail(b, a), []byte("junk"), b[:len(b)-9], a, b[:30]}, nil)
	path := write(t, t.TempDir(), "clip.mjpeg", data)
	round := []string{
		"clip.mjpeg, picture 1 RGB24 16x8", "clip.mjpeg, picture 2 RGB24 8x8", "skipped clip.mjpeg, picture 3",
		"skipped clip.mjpeg, picture 4", "clip.mjpeg, picture 5 RGB24 16x8", "skipped clip.mjpeg, picture 6",
	}
	s := open(t, Options{Name: "door", Path: path, Step: true})
	expect(t, "mjpeg", play(t, s, 99), "1 "+round[0], "2 "+round[1], round[2], round[3], "3 "+round[4], round[5], "end")
	if s.Skipped() != 3 {
		t.Errorf("%d skipped, want 3", s.Skipped())
	}
	s = open(t, Options{Name: "door", Path: path, Step: true, Loop: true})
	expect(t, "loop", play(t, s, 9)[6:], "4 "+round[0], "5 "+round[1], round[2])
}

// y4m makes a stream of n pictures whose Y, U and V samples are base, base+1 and base+2 of the picture's number times 10.
func y4m(header string, luma, chroma, n int) []byte {
	out := []byte(header + "\n")
	for i := range n {
		line := "FRAME\n"
		if i%2 == 1 {
			line = "FRAME Ip Xa=b\n"
		}
		out = append(out, line...)
		out = append(out, bytes.Repeat([]byte{byte(10 * i)}, luma)...)
		out = append(out, bytes.Repeat([]byte{byte(10*i + 1)}, chroma)...)
		out = append(out, bytes.Repeat([]byte{byte(10*i + 2)}, chroma)...)
	}
	return out
}

func TestY4M(t *testing.T) {
	for _, c := range []struct {
		header       string
		w, h, chroma int
		format       sensors.Format
		full         bool
		rate         float64
	}{
		{"YUV4MPEG2 W8 H6 F30:1 Ip A1:1 C420jpeg", 8, 6, 12, sensors.NV12, true, 30},
		{"YUV4MPEG2 W8 H6 F30000:1001 C420mpeg2", 8, 6, 12, sensors.NV12, false, 30000.0 / 1001},
		{"YUV4MPEG2 H6 W8 C420paldv", 8, 6, 12, sensors.NV12, false, defaultRate},
		{"YUV4MPEG2 W8 H6 F0:0 C420 XCOLORRANGE=FULL", 8, 6, 12, sensors.NV12, true, defaultRate},
		{"YUV4MPEG2 W8 H6 XYSCSS=420JPEG XCOLORRANGE=LIMITED", 8, 6, 12, sensors.NV12, false, defaultRate},
		{"YUV4MPEG2 W7 H5 F25:1", 7, 5, 12, sensors.NV12, false, 25},
		{"YUV4MPEG2 W1 H1 F25:1", 1, 1, 1, sensors.NV12, false, 25},
		{"YUV4MPEG2 W7 H5 F25:1 Cmono", 7, 5, 0, sensors.Gray8, false, 25},
	} {
		path := write(t, t.TempDir(), "a.y4m", y4m(c.header, c.w*c.h, c.chroma, 3))
		s := open(t, Options{Name: "door", Path: path, Step: true, Loop: true})
		if s.opts.Rate != c.rate {
			t.Errorf("%s: rate %v, want %v", c.header, s.opts.Rate, c.rate)
		}
		for i := range 7 {
			f := next(t, s)
			want := byte(10 * (i % 3))
			y, uv := f.Planes[0], f.Planes[1]
			if f.Format != c.format || f.Width != c.w || f.Height != c.h || f.FullRange != c.full || f.Seq != uint64(i+1) {
				t.Fatalf("%s: frame %+v", c.header, f.Seq)
			}
			if len(y.Data) != c.w*c.h || len(uv.Data) != 2*c.chroma || y.Data[0] != want || y.Data[len(y.Data)-1] != want {
				t.Fatalf("%s: picture %d, luma %v", c.header, i, y.Data)
			}
			for k, v := range uv.Data { // interleaved U, V
				if v != want+1+byte(k%2) {
					t.Fatalf("%s: picture %d, chroma %v", c.header, i, uv.Data)
				}
			}
			f.Release()
		}
	}
}

func TestY4MHeaderErrors(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{"", "EOF"},
		{"YUV4MPEG2 W8 H6", "EOF"}, // no end of line
		{"RIFF\n", "no YUV4MPEG2"},
		{"\n", "no YUV4MPEG2"},
		{"YUV4MPEG2\n", "0x0"},
		{"YUV4MPEG2 W8\n", "8x0"},
		{"YUV4MPEG2 W-8 H6\n", "-8x6"},
		{"YUV4MPEG2 Wx H6\n", `field "Wx"`},
		{"YUV4MPEG2 W99999999999999999999 H6\n", `field "W9`},
		{"YUV4MPEG2 W60000 H60000\n", "too large"},
		{"YUV4MPEG2 W1000000 H1\n", "too large"},
		{"YUV4MPEG2 W8 H6 F30\n", `field "F30"`},
		{"YUV4MPEG2 W8 H6 F30:0\n", `field "F30:0"`},
		{"YUV4MPEG2 W8 H6 F-30:1\n", `field "F-30:1"`},
		{"YUV4MPEG2 W8 H6 C444\n", "4:2:0"},
		{"YUV4MPEG2 W8 H6 C420p10\n", "4:2:0"},
		{"YUV4MPEG2 " + strings.Repeat("X", 2000), "more than 1024"},
	} {
		path := write(t, t.TempDir(), "a.y4m", []byte(c.header))
		files := openFiles(t)
		_, err := Open(Options{Path: path})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.40q: %v, want an error about %q that names the file", c.header, err, c.want)
		}
		if openFiles(t) > files {
			t.Errorf("%.40q: the file stayed open", c.header)
		}
	}
}

func TestY4MDamage(t *testing.T) {
	whole := y4m("YUV4MPEG2 W4 H2", 8, 2, 2)
	for _, c := range []struct {
		name string
		data []byte
		want []string
	}{
		{"cut in the luma", whole[:len(whole)-8], []string{"1 . NV12 4x2", "skipped a.y4m, picture 2", "end"}},
		{"cut in the chroma", whole[:len(whole)-1], []string{"1 . NV12 4x2", "skipped a.y4m, picture 2", "end"}},
		{"no frame line", append(bytes.Clone(whole), "garbage garbage"...), []string{"1 . NV12 4x2", "2 . NV12 4x2", "error: cannot replay PATH: no FRAME line before picture 3: the file is damaged"}},
		{"cut in the frame line", append(bytes.Clone(whole), "FRAME X"...), []string{"1 . NV12 4x2", "2 . NV12 4x2", "error: cannot replay PATH: FRAME line of picture 3 is cut off: the file is damaged"}},
		{"endless frame line", append(bytes.Clone(whole), "FRAME "+strings.Repeat("x", 5000)...), []string{"1 . NV12 4x2", "2 . NV12 4x2", "error: cannot replay PATH: endless FRAME line before picture 3"}},
	} {
		path := write(t, t.TempDir(), "a.y4m", c.data)
		s := open(t, Options{Name: "door", Path: path, Step: true})
		got := play(t, s, len(c.want))
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], path, "PATH")
		}
		expect(t, c.name, got, c.want...)
	}
}

func TestNV12(t *testing.T) {
	data := append(bytes.Repeat([]byte{7}, 12), bytes.Repeat([]byte{8}, 12)...)
	path := write(t, t.TempDir(), "a.nv12", append(data, 1, 2, 3))
	s := open(t, Options{Name: "door", Path: path, Width: 4, Height: 2, Step: true})
	f := next(t, s)
	if f.Planes[0].StrideBytes != 4 || f.Planes[1].StrideBytes != 4 || len(f.Planes[0].Data) != 8 || len(f.Planes[1].Data) != 4 {
		t.Errorf("planes %+v", f.Planes)
	}
	f.Release()
	expect(t, "rest", play(t, s, 9), "2 . NV12 4x2", "skipped a.nv12, picture 3", "end")
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	nv, mjpeg := write(t, dir, "a.nv12", make([]byte, 6)), write(t, dir, "a.mjpeg", nil)
	for _, c := range []struct {
		name string
		o    Options
		want string
		is   error
	}{
		{"missing", Options{Path: filepath.Join(dir, "no.mjpeg")}, "no.mjpeg", os.ErrNotExist},
		{"no path", Options{}, "cannot replay", os.ErrNotExist},
		{"empty folder", Options{Path: t.TempDir()}, "holds no .jpg", nil},
		{"unknown kind", Options{Path: write(t, dir, "a.mkv", nil)}, `unknown kind ".mkv"`, nil},
		{"size missing", Options{Path: nv}, "set width and height", picture.ErrEmpty},
		{"odd size", Options{Path: nv, Width: 3, Height: 2}, "must be even", nil},
		{"size too large", Options{Path: nv, Width: 60000, Height: 60000}, "too large", picture.ErrTooLarge},
		{"negative rate", Options{Path: mjpeg, Rate: -1}, "negative", nil},
		{"negative speed", Options{Path: mjpeg, Speed: -1}, "negative", nil},
		{"negative frames", Options{Path: mjpeg, Frames: -1}, "negative", nil},
		{"negative repeat", Options{Path: mjpeg, Repeat: -1}, "negative", nil},
	} {
		s, err := Open(c.o)
		if err == nil || s != nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.want)
		}
	}
	if os.Getuid() != 0 { // root may read everything
		locked := write(t, dir, "locked.mjpeg", nil)
		if err := os.Chmod(locked, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{Path: locked}); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), locked) {
			t.Errorf("unreadable file: %v", err)
		}
	}
}

func TestRepeat(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.png", aPNG(t, 4, 4))
	write(t, dir, "b.jpg", still(t, 8, 8, 100))
	s := open(t, Options{Name: "door", Path: dir, Step: true, Repeat: 3, Frames: 1})
	expect(t, "repeat", play(t, s, 99), "1 a.png RGB24 4x4", "2 a.png RGB24 4x4", "3 a.png RGB24 4x4",
		"4 b.jpg RGB24 8x8", "5 b.jpg RGB24 8x8", "6 b.jpg RGB24 8x8", "end")
	s = open(t, Options{Name: "door", Path: filepath.Join(dir, "b.jpg"), Step: true, Repeat: 3})
	one, two := next(t, s), next(t, s)
	if !bytes.Equal(one.Planes[0].Data, two.Planes[0].Data) || &one.Planes[0].Data[0] == &two.Planes[0].Data[0] {
		t.Error("a repeated picture must be a copy of the first")
	}
	one.Release()
	two.Release() // closed in the middle of the repetition: the source's own hold must go too
}

// TestContextCostsNoPicture: whatever a caller gives up waiting for, no picture of the stream is lost and its framing
// holds.
func TestContextCostsNoPicture(t *testing.T) {
	dir := t.TempDir()
	still := still(t, 4, 2, 9)
	for name, path := range map[string]string{
		"y4m":    write(t, dir, "a.y4m", y4m("YUV4MPEG2 W4 H2", 8, 2, 3)),
		"mjpeg":  write(t, dir, "a.mjpeg", bytes.Repeat(still, 3)),
		"repeat": write(t, dir, "a.jpg", still),
	} {
		repeat := 0
		if name == "repeat" {
			repeat = 3
		}
		s := open(t, Options{Name: "door", Path: path, Rate: 50, Frames: 1, Repeat: repeat})
		held := next(t, s)
		for range 3 { // no frame is free, and the next one is not due
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: %v", name, err)
			}
			cancel()
		}
		held.Release()
		if got := play(t, s, 9); len(got) != 3 || got[2] != "end" || !strings.HasPrefix(got[0], "2 ") {
			t.Errorf("%s: %v, want two frames more and the end", name, got)
		}
		if s.Skipped() != 0 {
			t.Errorf("%s: %d skipped", name, s.Skipped())
		}
	}
}

func TestPace(t *testing.T) {
	path := write(t, t.TempDir(), "a.y4m", y4m("YUV4MPEG2 W2 H2 F100:1 Cmono", 4, 0, 100))
	for _, c := range []struct {
		name        string
		o           Options
		least, most time.Duration // for 21 frames
	}{
		{"own rate", Options{}, 190 * time.Millisecond, 5 * time.Second},
		{"other rate", Options{Rate: 200}, 90 * time.Millisecond, 5 * time.Second},
		{"ten times as fast", Options{Speed: 10}, 19 * time.Millisecond, 5 * time.Second},
		{"step", Options{Step: true, Rate: 0.01}, 0, 5 * time.Second},
	} {
		c.o.Path = path
		s := open(t, c.o)
		start := time.Now()
		for range 21 {
			next(t, s).Release()
		}
		if d := time.Since(start); d < c.least || d > c.most {
			t.Errorf("%s: 21 frames took %v, want %v to %v", c.name, d, c.least, c.most)
		}
	}
}

func TestCloseWakesNext(t *testing.T) {
	path := write(t, t.TempDir(), "a.y4m", y4m("YUV4MPEG2 W2 H2 Cmono", 4, 0, 100))
	before := runtime.NumGoroutine()
	for name, o := range map[string]Options{
		"not due":       {Path: path, Rate: 0.001},
		"no frame free": {Path: path, Frames: 1, Step: true},
	} {
		s := open(t, o)
		held := next(t, s)
		woken := make(chan error)
		go func() {
			_, err := s.Next(bounded(t))
			woken <- err
		}()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-woken; !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		pix := held.Planes[0].Data
		pix[0] = 1 // still ours
		held.Release()
		if pix[0] != 0 {
			t.Errorf("%s: a picture stayed in memory", name)
		}
	}
	for limit := time.Now().Add(wait); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// TestCloseWhileReading races Close against a Next that reads and decodes: the only answers are frames and ErrClosed.
func TestCloseWhileReading(t *testing.T) {
	path := write(t, t.TempDir(), "a.mjpeg", bytes.Repeat(still(t, 64, 64, 9), 50))
	for i := range 20 {
		s := open(t, Options{Path: path, Step: true, Loop: true})
		first, done := make(chan struct{}), make(chan error)
		go func() {
			for n := 0; ; n++ {
				f, err := s.Next(bounded(t))
				if err != nil {
					done <- err
					return
				}
				f.Release()
				if n == i {
					close(first)
				}
			}
		}()
		<-first
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("Next: %v", err)
		}
		if s.Skipped() != 0 {
			t.Errorf("%d pictures counted as broken", s.Skipped())
		}
	}
}

// clip is a real recording: 640x480, 15 frames a second.
func clip(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("VIGIL_DATA")
	if dir == "" {
		dir = "../../../shared/data"
	}
	path := filepath.Join(dir, "clips", "P1", "yes.15fps.mjpeg")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no test data: %v: point VIGIL_DATA to the folder of models and pictures", err)
	}
	return path
}

func TestRealClipIsTheSameEveryRound(t *testing.T) {
	path := clip(t)
	s := open(t, Options{Path: path, Step: true})
	for range 8 {
		f := next(t, s)
		if f.Width != 640 || f.Height != 480 || f.Format != sensors.RGB24 {
			t.Fatalf("frame %d: %v %dx%d", f.Seq, f.Format, f.Width, f.Height)
		}
		f.Release()
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	m := &mjpeg{file: file, split: newSplitter(file)}
	first := 0
	for round := range 5 { // without decoding, to be quick
		n := 0
		for {
			data, err := m.split.next()
			if err == io.EOF {
				break
			}
			if err == nil {
				err = picture.Check(data)
			}
			if err != nil {
				t.Fatalf("round %d, picture %d: %v", round, n+1, err)
			}
			n++
		}
		if round == 0 {
			first = n
		}
		if n != first || n < 8 {
			t.Errorf("round %d: %d pictures, %d in the first", round, n, first)
		}
		if err := m.rewind(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d pictures", first)
}

func TestRawVideoAllocatesNothing(t *testing.T) {
	dir := t.TempDir()
	for name, o := range map[string]Options{
		"y4m":    {Path: write(t, dir, "a.y4m", y4m("YUV4MPEG2 W64 H48 F30:1", 64*48, 32*24, 4))},
		"nv12":   {Path: write(t, dir, "a.nv12", make([]byte, 4*64*48*3/2)), Width: 64, Height: 48},
		"repeat": {Path: write(t, dir, "b.y4m", y4m("YUV4MPEG2 W64 H48 F30:1", 64*48, 32*24, 4)), Repeat: 5},
	} {
		o.Step, o.Loop = true, true
		s := open(t, o)
		ctx := bounded(t)
		step := func() {
			f, err := s.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		for range 20 {
			step()
		}
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%s: %v allocations per frame", name, n)
		}
	}
}

// FuzzY4M: a header is refused or gives frames that are as large as they say.
func FuzzY4M(f *testing.F) {
	f.Add(y4m("YUV4MPEG2 W8 H6 F30:1 Ip A1:1 C420jpeg", 48, 12, 2))
	f.Add(y4m("YUV4MPEG2 W7 H5 F25:1 Cmono", 35, 0, 2))
	f.Add([]byte("YUV4MPEG2 W60000 H60000\n"))
	f.Add([]byte("YUV4MPEG2 W8 H6 F0:0\nFRAME\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := write(t, t.TempDir(), "a.y4m", data)
		s, err := Open(Options{Path: path, Step: true, Frames: 1})
		if err != nil {
			return
		}
		defer s.Close()
		if r := s.stream.(*raw); r.w*r.h > 1<<16 {
			return // accepted, but its buffers are too large to fuzz
		}
		for range len(data) + 1 {
			f, err := s.Next(context.Background())
			if err == nil {
				y, uv := f.Planes[0], f.Planes[1]
				if len(y.Data) != f.Width*f.Height || f.Format == sensors.NV12 && len(uv.Data) != uv.StrideBytes*((f.Height+1)/2) {
					t.Fatalf("%dx%d with planes of %d and %d bytes", f.Width, f.Height, len(y.Data), len(uv.Data))
				}
				f.Release()
				continue
			}
			var skipped *sensors.SkippedError
			if !errors.As(err, &skipped) {
				return
			}
		}
		t.Fatal("it does not end")
	})
}

func BenchmarkMJPEG(b *testing.B) {
	s := open(b, Options{Path: clip(b), Step: true, Loop: true})
	b.ReportAllocs()
	for b.Loop() {
		f, err := s.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}

func BenchmarkY4M(b *testing.B) {
	s := open(b, Options{Path: write(b, b.TempDir(), "a.y4m", y4m("YUV4MPEG2 W640 H480 F30:1", 640*480, 320*240, 4)), Step: true, Loop: true})
	b.ReportAllocs()
	for b.Loop() {
		f, err := s.Next(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
}
