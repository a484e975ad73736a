// Package replay is the sensor driver that plays recordings: a folder of pictures, an MJPEG file, a Y4M or raw NV12
// stream.
//
// Promises: frames come in order and none is lost by this package (wrap the source in sensors.Newest for the manners of
// a camera). A picture that is broken is passed over with a *sensors.SkippedError that names it and is counted; the
// stream goes on behind it. At PaceReal and faster, Next waits until a frame is due; at PaceStep it never waits. Memory is
// the pool: when all its frames are held, Next blocks until one is released or the context ends.
//
// It owns the open file. It does not decode H.264 and does not keep the time stamps of a recording.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vigil/sensors"
)

// Options says what to play and how.
type Options struct {
	Name   string  // name of the sensor, put into every frame
	Path   string  // a folder of .jpg/.jpeg/.png, or a file .mjpeg/.mjpg, .y4m, .nv12
	Rate   float64 // frames per second; 0 takes the recording's own, or 15 where it has none
	Speed  float64 // 1 plays at Rate, 10 ten times as fast, 0 means 1
	Step   bool    // frame by frame: Next never waits
	Loop   bool    // start again at the end instead of io.EOF
	Repeat int     // how many times each picture is shown, as if somebody stood there; 0 means once

	Width, Height int // pixels, for .nv12 only, which does not say

	Frames int // how many frames may be held at once by whoever takes them; 0 means 4
}

// defaultRate is what a recording without a frame rate plays at, in frames per second.
const defaultRate = 15

// Source plays one recording. It implements sensors.Source.
type Source struct {
	opts    Options
	pool    *sensors.Pool
	stream  stream
	closed  chan struct{}
	once    sync.Once
	seq     uint64
	due     time.Time
	skipped atomic.Uint64
	sinceOK int // broken pictures in a row

	busy  sync.Mutex     // held while Next runs
	shown *sensors.Frame // the picture being repeated, held by the source
	left  int            // how often it is still to be shown
}

// stream reads one kind of recording. next returns io.EOF at the end and a *sensors.SkippedError for a broken picture,
// after which it stands behind it.
type stream interface {
	next(ctx context.Context, pool *sensors.Pool) (*sensors.Frame, error)
	rewind() error
	rate() float64 // frames per second, 0 if the recording does not say
	close() error
}

// Open opens a recording. The error names the path and, for an unknown kind, the kinds there are.
func Open(o Options) (*Source, error) {
	if o.Frames == 0 {
		o.Frames = 4
	}
	if o.Speed == 0 {
		o.Speed = 1
	}
	if o.Rate < 0 || o.Speed < 0 || o.Frames < 0 || o.Repeat < 0 {
		return nil, fmt.Errorf("replay %s: rate, speed, frames and repeat cannot be negative", o.Path)
	}
	st, err := openStream(o)
	if err != nil {
		return nil, fmt.Errorf("cannot replay %s: %w", o.Path, err)
	}
	if o.Rate == 0 {
		o.Rate = st.rate()
	}
	if o.Rate == 0 {
		o.Rate = defaultRate
	}
	if o.Repeat > 1 {
		o.Frames++ // the picture being repeated is held by the source
	}
	return &Source{opts: o, pool: sensors.NewPool(o.Frames), stream: st, closed: make(chan struct{})}, nil
}

func openStream(o Options) (stream, error) {
	info, err := os.Stat(o.Path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openFolder(o.Path)
	}
	switch ext := strings.ToLower(filepath.Ext(o.Path)); ext {
	case ".mjpeg", ".mjpg":
		return openMJPEG(o.Path)
	case ".y4m":
		return openY4M(o.Path)
	case ".nv12":
		return openNV12(o.Path, o.Width, o.Height)
	case ".jpg", ".jpeg", ".png":
		return &folder{names: []string{o.Path}}, nil
	default:
		return nil, fmt.Errorf("unknown kind %q: a folder of pictures, .jpg, .png, .mjpeg, .y4m or .nv12 can be played", ext)
	}
}

// Skipped is the number of broken pictures passed over so far.
func (s *Source) Skipped() uint64 { return s.skipped.Load() }

// maxBroken is how many broken pictures in a row a loop tolerates before it is called hopeless.
const maxBroken = 10000

// Next implements sensors.Source.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	f, err := s.next(ctx)
	if err != nil && s.isClosed() {
		return nil, os.ErrClosed
	}
	return f, err
}

func (s *Source) next(ctx context.Context) (*sensors.Frame, error) {
	for rewound := false; ; {
		if err := s.ready(ctx); err != nil {
			return nil, err
		}
		if s.left > 0 {
			return s.again(ctx)
		}
		f, err := s.stream.next(ctx, s.pool)
		switch {
		case err == nil:
			s.sinceOK = 0
			if s.opts.Repeat > 1 {
				s.shown, s.left = f, s.opts.Repeat
				return s.again(ctx)
			}
			return s.deliver(f), nil
		case errors.Is(err, io.EOF):
			if !s.opts.Loop || s.seq == 0 || rewound { // nothing to play: a loop would spin
				return nil, io.EOF
			}
			rewound = true
			if err := s.stream.rewind(); err != nil {
				return nil, fmt.Errorf("cannot replay %s again: %w", s.opts.Path, err)
			}
		default:
			return nil, s.skip(err)
		}
	}
}

// again delivers the repeated picture as a frame of its own: its pixels are copied, because holders of the frame before
// may still read theirs while this one gets a new time stamp.
func (s *Source) again(ctx context.Context) (*sensors.Frame, error) {
	from := s.shown
	if s.left--; s.left == 0 {
		s.shown = nil
		return s.deliver(from), nil
	}
	size := 0
	for _, p := range from.Planes {
		size += len(p.Data)
	}
	f, err := s.pool.Get(ctx, size)
	if err != nil {
		s.left++
		return nil, err
	}
	rest := f.Buffer()
	for i, p := range from.Planes {
		n := copy(rest, p.Data)
		f.Planes[i] = sensors.Plane{Data: rest[:n], StrideBytes: p.StrideBytes}
		rest = rest[n:]
	}
	f.Width, f.Height, f.Format, f.FullRange, f.Label = from.Width, from.Height, from.Format, from.FullRange, from.Label
	return s.deliver(f), nil
}

func (s *Source) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// skip counts a broken picture; any other error passes through as it is.
func (s *Source) skip(err error) error {
	var skipped *sensors.SkippedError
	if !errors.As(err, &skipped) {
		return err
	}
	s.skipped.Add(1)
	if s.sinceOK++; s.sinceOK > maxBroken {
		return fmt.Errorf("cannot replay %s: %d broken pictures in a row, the last: %w", s.opts.Path, s.sinceOK, skipped.Err)
	}
	return err
}

// ready waits until a frame is due and a free one is there, so that a context that ends costs no picture of the stream.
func (s *Source) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.pace(ctx); err != nil {
		return err
	}
	f, err := s.pool.Get(ctx, 0)
	if err != nil {
		return err
	}
	f.Release() // nobody but Next takes frames, so it stays free
	return nil
}

// pace waits until the next frame is due.
func (s *Source) pace(ctx context.Context) error {
	wait := time.Until(s.due)
	if s.opts.Step || wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.closed:
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver stamps a frame and says when the next one is due.
func (s *Source) deliver(f *sensors.Frame) *sensors.Frame {
	now := time.Now()
	s.seq++
	f.Sensor, f.Seq, f.Captured = s.opts.Name, s.seq, now
	if s.due.IsZero() {
		s.due = now
	}
	s.due = s.due.Add(time.Duration(float64(time.Second) / (s.opts.Rate * s.opts.Speed)))
	return f
}

// Close closes the recording and wakes a waiting Next. Pictures are wiped from memory: at once those that nobody holds,
// the others when they are released. It waits for a Next that is decoding.
func (s *Source) Close() (err error) {
	s.once.Do(func() {
		close(s.closed)
		s.pool.Close()
		err = s.stream.close()
		s.busy.Lock()
		defer s.busy.Unlock()
		if s.shown != nil {
			s.shown.Release()
			s.shown, s.left = nil, 0
		}
	})
	return err
}
