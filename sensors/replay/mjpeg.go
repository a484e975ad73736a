package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"vigil/sensors"
	"vigil/sensors/picture"
)

// mjpeg plays a file of concatenated JPEG pictures.
type mjpeg struct {
	file  *os.File
	split *splitter
	count int
}

func openMJPEG(path string) (*mjpeg, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &mjpeg{file: file, split: newSplitter(file)}, nil
}

func (m *mjpeg) next(ctx context.Context, pool *sensors.Pool) (*sensors.Frame, error) {
	data, err := m.split.next()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return nil, fmt.Errorf("cannot replay %s: %w", m.file.Name(), err)
	}
	m.count++
	name := fmt.Sprintf("%s, picture %d", m.file.Name(), m.count)
	if err != nil {
		return nil, &sensors.SkippedError{Name: name, Err: err}
	}
	return decode(ctx, pool, data, name)
}

func (m *mjpeg) rewind() error {
	if _, err := m.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	m.split.reset(m.file)
	m.count = 0
	return nil
}

func (m *mjpeg) rate() float64 { return 0 }
func (m *mjpeg) close() error  { return m.file.Close() }

// JPEG markers, ITU-T T.81 table B.1.
const (
	markSOI  = 0xd8
	markEOI  = 0xd9
	markSOS  = 0xda
	markDQT  = 0xdb
	markAPP0 = 0xe0 // from here on: application data, extensions, comments
	markRST  = 0xd0 // to 0xd7
	markTEM  = 0x01
)

var (
	errNoEOI  = errors.New("picture is cut off before its end marker")
	errJunk   = errors.New("bytes that belong to no picture")
	errTooBig = fmt.Errorf("picture of more than %d bytes", picture.MaxBytes)
)

// splitter cuts a byte stream into JPEG pictures by walking their markers, so that thumbnails inside a header do not
// end a picture early. Its buffer is reused: a returned picture is valid until the next call.
type splitter struct {
	r     *bufio.Reader
	buf   []byte
	atSOI bool // the start marker of the next picture has been read already
}

func newSplitter(r io.Reader) *splitter { return &splitter{r: bufio.NewReaderSize(r, 64<<10)} }

func (s *splitter) reset(r io.Reader) {
	s.r.Reset(r)
	s.atSOI = false
}

// next returns the next whole picture, io.EOF at a clean end, or an error about bytes that were passed over.
func (s *splitter) next() ([]byte, error) {
	if !s.atSOI {
		junk, err := s.seekSOI()
		s.atSOI = err == nil
		if junk > 0 && (err == nil || errors.Is(err, io.EOF)) {
			return nil, fmt.Errorf("%w: %d of them", errJunk, junk)
		}
		if err != nil {
			return nil, err
		}
	}
	s.atSOI = false
	s.buf = append(s.buf[:0], 0xff, markSOI)
	if err := s.body(); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errNoEOI
		}
		return nil, err
	}
	return s.buf, nil
}

// seekSOI reads up to and including a start marker and counts the other bytes before it.
func (s *splitter) seekSOI() (junk int, err error) {
	var prev byte
	for n := 0; ; n++ {
		b, err := s.r.ReadByte()
		if err != nil {
			return n, err
		}
		if prev == 0xff && b == markSOI {
			return n - 1, nil
		}
		prev = b
	}
}

// body appends everything from behind the start marker to the end marker.
func (s *splitter) body() error {
	marker, err := s.marker()
	for err == nil && marker != markEOI {
		switch {
		case marker == markSOI:
			s.atSOI = true
			return errNoEOI
		case marker == markTEM || isRestart(marker):
		default:
			err = s.segment(marker)
		}
		if err != nil {
			return err
		}
		if marker == markSOS {
			marker, err = s.entropy()
		} else {
			marker, err = s.marker()
		}
	}
	return err
}

func isRestart(marker byte) bool { return marker >= markRST && marker <= markRST+7 }

// marker reads one marker (fill bytes allowed) and returns its code.
func (s *splitter) marker() (byte, error) {
	b, err := s.take()
	if err != nil {
		return 0, err
	}
	if b == markSOI && s.buf[len(s.buf)-2] == 0xff {
		return b, nil // the segment before took the first half of the next picture's start for its last byte
	}
	if b != 0xff {
		return 0, fmt.Errorf("no marker where one must be (0x%02x)", b)
	}
	for b == 0xff && err == nil {
		b, err = s.take()
	}
	return b, err
}

// segment copies a length-prefixed segment. A start marker in its length, or inside a segment that cannot hold one by
// right, is the next picture: this one was cut off, and walking on would swallow what follows.
func (s *splitter) segment(marker byte) error {
	hi, err := s.take()
	if err != nil {
		return err
	}
	lo, err := s.take()
	if err != nil {
		return err
	}
	if hi == 0xff && lo == markSOI {
		s.atSOI = true
		return errNoEOI
	}
	free := marker >= markAPP0 || marker == markDQT // application data, comments, tables of any bytes
	prev := lo
	for n := int(hi)<<8 | int(lo); n > 2; n-- {
		b, err := s.take()
		if err != nil {
			return err
		}
		if !free && prev == 0xff && b == markSOI {
			s.atSOI = true
			return errNoEOI
		}
		prev = b
	}
	return nil
}

// entropy copies scan data and the marker that ends it, which is neither a stuffed byte nor a restart.
func (s *splitter) entropy() (byte, error) {
	prev := s.buf[len(s.buf)-1] // of the scan header, see marker
	for {
		b, err := s.take()
		if err != nil {
			return 0, err
		}
		if prev == 0xff && b != 0 && b != 0xff && !isRestart(b) {
			return b, nil
		}
		prev = b
	}
}

func (s *splitter) take() (byte, error) {
	if len(s.buf) >= picture.MaxBytes {
		return 0, errTooBig
	}
	b, err := s.r.ReadByte()
	if err == nil {
		s.buf = append(s.buf, b)
	}
	return b, err
}
