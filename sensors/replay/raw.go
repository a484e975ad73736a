package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"vigil/sensors"
	"vigil/sensors/picture"
)

// raw plays uncompressed video: Y4M with 4:2:0 (mono too), or bare NV12 pictures one after the other.
type raw struct {
	file     *os.File
	r        *bufio.Reader
	w, h     int
	fps      float64
	full     bool // luma of full range
	mono     bool // Y plane only
	y4m      bool // pictures have a FRAME line, chroma planes are separate
	start    int64
	count    int
	halfRows []byte // one chroma plane of a Y4M picture
}

func openNV12(path string, w, h int) (*raw, error) {
	if err := picture.CheckSize(w, h); err != nil {
		return nil, fmt.Errorf("%w: set width and height of the sensor, an .nv12 file does not say them", err)
	}
	if w%2 != 0 || h%2 != 0 {
		return nil, fmt.Errorf("NV12 of %dx%d: both sides must be even", w, h)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &raw{file: file, r: bufio.NewReaderSize(file, 64<<10), w: w, h: h}, nil
}

// maxHeaderBytes bounds a Y4M header or frame line.
const maxHeaderBytes = 1024

// openY4M reads the stream header: "YUV4MPEG2 W640 H480 F30:1 C420jpeg ...", as mjpegtools' yuv4mpeg(5) describes it.
func openY4M(path string) (*raw, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v := &raw{file: file, r: bufio.NewReaderSize(file, 64<<10), y4m: true}
	line, err := readLine(v.r)
	if err == nil {
		err = v.header(line)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("not a Y4M stream: %w", err), file.Close())
	}
	v.start = int64(len(line)) + 1
	return v, nil
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for len(line) < maxHeaderBytes {
		b, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(line), nil
		}
		line = append(line, b)
	}
	return "", fmt.Errorf("header line of more than %d bytes", maxHeaderBytes)
}

func (v *raw) header(line string) error {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "YUV4MPEG2" {
		return errors.New("no YUV4MPEG2 at the start")
	}
	var err error
	for _, f := range fields[1:] {
		switch f[0] {
		case 'W':
			v.w, err = strconv.Atoi(f[1:])
		case 'H':
			v.h, err = strconv.Atoi(f[1:])
		case 'F':
			v.fps, err = parseRatio(f[1:])
		case 'C':
			err = v.colour(f[1:])
		case 'X':
			v.full = v.full || f == "XCOLORRANGE=FULL"
		}
		if err != nil {
			return fmt.Errorf("field %q: %w", f, err)
		}
	}
	return picture.CheckSize(v.w, v.h)
}

func (v *raw) colour(c string) error {
	switch {
	case c == "mono":
		v.mono = true
	case c == "420jpeg":
		v.full = true
	case c == "420" || c == "420mpeg2" || c == "420paldv":
	default:
		return errors.New("only 4:2:0 with 8 bits, or mono, can be played")
	}
	return nil
}

func parseRatio(s string) (float64, error) {
	num, den, ok := strings.Cut(s, ":")
	n, err1 := strconv.Atoi(num)
	d, err2 := strconv.Atoi(den)
	switch {
	case !ok || err1 != nil || err2 != nil || n < 0 || d < 0 || n > 0 && d == 0:
		return 0, errors.New("not a ratio such as 30:1")
	case n == 0: // 0:0 and 0:1 say that the rate is not known
		return 0, nil
	}
	return float64(n) / float64(d), nil
}

func (v *raw) next(ctx context.Context, pool *sensors.Pool) (*sensors.Frame, error) {
	if v.y4m {
		if err := v.frameLine(); err != nil {
			return nil, err
		}
	} else if err := v.more(); err != nil {
		return nil, err
	}
	v.count++
	half := (v.w + 1) / 2
	luma, chroma := v.w*v.h, 2*half*((v.h+1)/2)
	if v.mono {
		chroma = 0
	}
	f, err := pool.Get(ctx, luma+chroma)
	if err != nil {
		return nil, err
	}
	pix := f.Buffer()[:luma+chroma]
	if err := v.read(pix[:luma], pix[luma:]); err != nil {
		f.Release()
		return nil, &sensors.SkippedError{Name: fmt.Sprintf("%s, picture %d", v.file.Name(), v.count), Err: err}
	}
	f.Width, f.Height, f.Format, f.FullRange = v.w, v.h, sensors.NV12, v.full
	f.Planes[0] = sensors.Plane{Data: pix[:luma], StrideBytes: v.w}
	f.Planes[1] = sensors.Plane{Data: pix[luma:], StrideBytes: 2 * half}
	if v.mono {
		f.Format, f.Planes[1] = sensors.Gray8, sensors.Plane{}
	}
	return f, nil
}

// more says whether there is anything left to read: nil, io.EOF, or that the file cannot be read.
func (v *raw) more() error {
	_, err := v.r.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot replay %s: %w", v.file.Name(), err)
	}
	return err
}

// frameLine reads the FRAME line before a Y4M picture. A stream that lost its framing cannot go on.
func (v *raw) frameLine() error {
	if err := v.more(); err != nil {
		return err
	}
	const word = "FRAME"
	if got, err := v.r.Peek(len(word)); err != nil || string(got) != word {
		return fmt.Errorf("cannot replay %s: no FRAME line before picture %d: the file is damaged", v.file.Name(), v.count+1)
	}
	for range maxHeaderBytes {
		b, err := v.r.ReadByte()
		if err != nil {
			return fmt.Errorf("cannot replay %s: FRAME line of picture %d is cut off: the file is damaged", v.file.Name(), v.count+1)
		}
		if b == '\n' {
			return nil
		}
	}
	return fmt.Errorf("cannot replay %s: endless FRAME line before picture %d", v.file.Name(), v.count+1)
}

// read fills both planes; the two chroma planes of Y4M are interleaved into NV12's one.
func (v *raw) read(luma, chroma []byte) error {
	if _, err := io.ReadFull(v.r, luma); err != nil {
		return fmt.Errorf("%w: %v", picture.ErrBroken, err)
	}
	if !v.y4m || len(chroma) == 0 {
		if _, err := io.ReadFull(v.r, chroma); err != nil {
			return fmt.Errorf("%w: %v", picture.ErrBroken, err)
		}
		return nil
	}
	if len(v.halfRows) != len(chroma)/2 {
		v.halfRows = make([]byte, len(chroma)/2)
	}
	for c := range 2 {
		if _, err := io.ReadFull(v.r, v.halfRows); err != nil {
			return fmt.Errorf("%w: %v", picture.ErrBroken, err)
		}
		for i, b := range v.halfRows {
			chroma[2*i+c] = b
		}
	}
	return nil
}

func (v *raw) rewind() error {
	if _, err := v.file.Seek(v.start, io.SeekStart); err != nil {
		return err
	}
	v.r.Reset(v.file)
	v.count = 0
	return nil
}

func (v *raw) rate() float64 { return v.fps }
func (v *raw) close() error  { return v.file.Close() }
