package synth

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"vigil/sensors"
)

// SourceOptions says which fingers touch the sensor, in which order, and how.
type SourceOptions struct {
	Name        string // name of the sensor, put into every frame
	Seed        uint64 // of the first finger; the next have Seed+1, Seed+2, ...
	Fingers     int    // how many; 0 means without end
	Impressions int    // of each finger before the next; 0 means 1; their seeds are FirstTouch, FirstTouch+1, ...
	FirstTouch  uint64
	Rate        float64 // frames per second; 0 never waits
	Frames      int     // how many frames may be held at once by whoever takes them; 0 means 4

	Finger     Options
	Impression ImpressionOptions // zero Width means Preset(Normal)
}

func (o SourceOptions) withDefaults() SourceOptions {
	if o.Impressions == 0 {
		o.Impressions = 1
	}
	if o.Frames == 0 {
		o.Frames = 4
	}
	if o.Impression.Width == 0 {
		o.Impression = Preset(Normal)
	}
	return o
}

// Source is a fingerprint reader with nobody at it: impression after impression of finger after finger, none lost. It
// implements sensors.Source. Frames are Gray8 of full range, labelled FINGERSEED_IMPRESSIONSEED.
type Source struct {
	opts   SourceOptions
	pool   *sensors.Pool
	closed chan struct{}
	once   sync.Once

	busy       sync.Mutex // held while Next runs
	generator  *Generator
	finger     *Finger
	impression Impression
	made       uint64 // frames handed out
	due        time.Time
}

// NewSource checks the options; nothing is made before the first Next.
func NewSource(o SourceOptions) (*Source, error) {
	o = o.withDefaults()
	if o.Fingers < 0 || o.Impressions < 0 || o.Frames < 0 || !(o.Rate >= 0) || math.IsInf(o.Rate, 1) {
		return nil, fmt.Errorf("cannot make fingerprints: fingers, impressions, frames and rate cannot be negative or endless")
	}
	if err := o.Finger.Check(); err != nil {
		return nil, err
	}
	if err := o.Impression.Check(); err != nil {
		return nil, err
	}
	return &Source{opts: o, pool: sensors.NewPool(o.Frames), closed: make(chan struct{}), generator: NewGenerator()}, nil
}

// Next implements sensors.Source. The first impression of a finger takes some tenths of a second longer than the others;
// a context that ends meanwhile is noticed afterwards, and costs no frame. The end of Fingers is io.EOF.
func (s *Source) Next(ctx context.Context) (*sensors.Frame, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	n := s.made / uint64(s.opts.Impressions)
	if s.isClosed() {
		return nil, os.ErrClosed
	}
	if s.opts.Fingers > 0 && n >= uint64(s.opts.Fingers) {
		return nil, io.EOF
	}
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	frame, err := s.pool.Get(ctx, s.opts.Impression.Width*s.opts.Impression.Height)
	if err != nil {
		return nil, err
	}
	if err := s.fill(frame, s.opts.Seed+n, s.opts.FirstTouch+s.made%uint64(s.opts.Impressions)); err != nil {
		frame.Release()
		return nil, err
	}
	s.made++
	frame.Seq = s.made
	return frame, nil
}

// fill makes an impression in the frame's own memory.
func (s *Source) fill(frame *sensors.Frame, finger, touch uint64) error {
	if s.finger == nil || s.finger.Seed != finger {
		f, err := s.generator.Finger(finger, s.opts.Finger)
		if err != nil {
			return err
		}
		s.finger = f
	}
	s.impression.Gray = frame.Buffer()
	err := s.generator.Impression(s.finger, touch, s.opts.Impression, &s.impression)
	if err != nil {
		return err
	}
	frame.Sensor, frame.Label = s.opts.Name, fmt.Sprintf("%d_%d", finger, touch)
	frame.Captured, frame.Format, frame.FullRange = time.Now(), sensors.Gray8, true
	frame.Width, frame.Height = s.impression.Width, s.impression.Height
	frame.Planes[0] = sensors.Plane{Data: s.impression.Gray, StrideBytes: s.impression.Width}
	s.impression.Gray = nil // the frame's, not ours
	return nil
}

func (s *Source) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// wait blocks until the next frame is due. A frame taken late puts off those behind it.
func (s *Source) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || s.opts.Rate == 0 {
		return err
	}
	now := time.Now()
	if left := s.due.Sub(now); left > 0 {
		t := time.NewTimer(left)
		defer t.Stop()
		select {
		case <-t.C:
			now = s.due
		case <-s.closed:
			return os.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.due = now.Add(time.Duration(min(float64(time.Second)/s.opts.Rate, math.MaxInt64/2)))
	return nil
}

// Close wakes a waiting Next and wipes the pictures: at once those that nobody holds, the others when they are released.
func (s *Source) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.pool.Close()
	})
	return nil
}
