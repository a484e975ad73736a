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
	m.split, m.count = newSplitter(m.file), 0
	return nil
}

func (m *mjpeg) rate() float64 { return 0 }
func (m *mjpeg) close() error  { return m.file.Close() }

// JPEG markers, ITU-T T.81 table B.1.
const (
	markSOI = 0xd8
	markEOI = 0xd9
	markSOS = 0xda
	markRST = 0xd0 // to 0xd7
	markTEM = 0x01
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
	for {
		marker, err := s.marker()
		if err != nil {
			return err
		}
		switch {
		case marker == markEOI:
			return nil
		case marker == markTEM || marker >= markRST && marker <= markRST+7:
			continue
		}
		if err := s.segment(); err != nil {
			return err
		}
		if marker == markSOS {
			if err := s.entropy(); err != nil {
				return err
			}
		}
	}
}

// marker reads one marker (fill bytes allowed) and returns its code.
func (s *splitter) marker() (byte, error) {
	b, err := s.take()
	if err != nil {
		return 0, err
	}
	if b != 0xff {
		return 0, fmt.Errorf("no marker where one must be (0x%02x)", b)
	}
	for b == 0xff {
		if b, err = s.take(); err != nil {
			return 0, err
		}
	}
	if b == markSOI {
		s.atSOI = true
		return 0, errNoEOI
	}
	return b, nil
}

// segment copies a length-prefixed segment.
func (s *splitter) segment() error {
	hi, err := s.take()
	if err != nil {
		return err
	}
	lo, err := s.take()
	if err != nil {
		return err
	}
	for n := int(hi)<<8 | int(lo); n > 2; n-- {
		if _, err := s.take(); err != nil {
			return err
		}
	}
	return nil
}

// entropy copies scan data up to the next marker that is neither a stuffed byte nor a restart; that marker stays unread.
func (s *splitter) entropy() error {
	for {
		next, err := s.r.Peek(2)
		if err != nil {
			return errNoEOI
		}
		if next[0] == 0xff && next[1] != 0 && next[1] != 0xff && (next[1] < markRST || next[1] > markRST+7) {
			return nil
		}
		if _, err := s.take(); err != nil {
			return err
		}
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
