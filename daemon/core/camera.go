package core

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/picture"
	"vigil/sensors/v4l2"
)

// cameraKernel is where cameras are looked for; tests play one.
var cameraKernel *v4l2.Kernel

// openCamera makes the source of a camera. The camera itself is opened by the source and need not be there yet.
func openCamera(c config.Sensor) (sensors.Source, error) {
	o, err := cameraOptions(c)
	if err != nil {
		return nil, err
	}
	open := v4l2.Open
	if cameraKernel != nil {
		open = cameraKernel.Camera
	}
	src, err := open(o)
	if err != nil {
		return nil, err // not a nil *v4l2.Source as a sensors.Source
	}
	return src, nil
}

func cameraOptions(c config.Sensor) (v4l2.Options, error) {
	o := v4l2.Options{
		Name: c.Name, Pin: v4l2.Pin{Node: c.Path, USB: c.USB, Serial: c.Serial, Card: c.Card}, Width: c.Width, Height: c.Height, Rate: c.Rate,
	}
	if name, ok := strings.CutPrefix(filepath.Clean(c.Path), v4l2.ByPath); ok {
		o.Pin.Place, o.Pin.Node = name, ""
	}
	if c.Format != "" {
		o.Format = sensors.Gray8 + sensors.Format(slices.Index(config.CameraFormats, c.Format))
	}
	if c.Profile != "" {
		p, err := v4l2.LoadProfile(c.Profile)
		if err != nil {
			return o, err
		}
		o.Controls = p
	}
	return o, nil
}

// glances is how often somebody looks at a camera that does not deliver, or comes and goes: a device that resets before its
// first frame tells nothing by itself.
const glances = time.Second

// next is the next frame of the source. A camera in trouble is looked at meanwhile.
func (s *sensor) next(ctx context.Context) (*sensors.Frame, error) {
	for {
		src, troubled := s.source()
		if !troubled {
			return src.Next(ctx)
		}
		soon, cancel := context.WithTimeout(ctx, glances)
		f, err := src.Next(soon)
		cancel()
		if err == nil || soon.Err() == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return f, err
		}
		s.note(ctx, "", nil)
	}
}

// hidden is how often the cameras were lost and found since they were last asked, without the times that were told. The
// caller holds the lock.
func (s *sensor) hidden() uint64 {
	if s.camera == nil {
		return 0
	}
	connects := s.camera.Stats().Connects
	if s.pair != nil {
		connects += s.pair.camera.Stats().Connects
	}
	found, told := connects-s.connects, s.told
	s.connects, s.told = connects, 0
	first := min(found, s.firsts)
	s.firsts -= first
	found -= first
	return found - min(found, told)
}

// cameras is how many there are.
func (o *opened) cameras() uint64 {
	switch {
	case o.pair != nil:
		return 2
	case o.camera != nil:
		return 1
	}
	return 0
}

// decodedFrames is how many decoded pictures there may be: the one being looked at, and one being made.
const decodedFrames = 2

// decoded decodes the MJPEG frames of a source into a pool of its own; others pass as they are, without a copy. It stands
// behind sensors.Newest, so that only frames that are wanted are decoded. It owns the source.
type decoded struct {
	src  sensors.Source
	pool *sensors.Pool
}

func newDecoded(src sensors.Source) *decoded { return &decoded{src, sensors.NewPool(decodedFrames)} }

// Next implements sensors.Source. A picture that cannot be decoded is a *sensors.SkippedError.
func (d *decoded) Next(ctx context.Context) (*sensors.Frame, error) {
	f, err := d.src.Next(ctx)
	if err != nil || f.Format != sensors.MJPEG {
		return f, err
	}
	defer f.Release()
	out, err := picture.Decode(ctx, d.pool, f.Planes[0].Data)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &sensors.SkippedError{Name: fmt.Sprintf("%s, frame %d", f.Sensor, f.Seq), Err: err}
	}
	out.Sensor, out.Label, out.Seq, out.Captured, out.FullRange = f.Sensor, f.Label, f.Seq, f.Captured, true
	out.Arrived, out.Copies = f.Arrived, f.Copies+1
	return out, nil
}

// Close implements sensors.Source.
func (d *decoded) Close() error {
	err := d.src.Close()
	d.pool.Close()
	return err
}
