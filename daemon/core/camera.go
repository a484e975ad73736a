package core

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/picture"
	"vigil/sensors/v4l2"
)

// openCamera makes the source of a camera. The camera itself is opened by the source and need not be there yet.
func openCamera(c config.Sensor) (sensors.Source, error) {
	o, err := cameraOptions(c)
	if err != nil {
		return nil, err
	}
	src, err := v4l2.Open(o)
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

// away names the state of a source that does not deliver. A camera that is not the pinned one may be an attack: it is
// audited, once for every time that it appears.
func (s *sensor) away(ctx context.Context, err error) {
	s.set(string(v4l2.StateOf(err)), err)
	if !errors.Is(err, v4l2.ErrRefused) {
		return
	}
	detail := map[string]any{"sensor": s.cfg.Name, "reason": err.Error()}
	if err := s.app.audit(ctx, "sensor.refused", "", detail, true); err != nil {
		s.app.log.Error("refused camera is not audited", "sensor", s.cfg.Name, "err", err)
	}
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
	return out, nil
}

// Close implements sensors.Source.
func (d *decoded) Close() error {
	err := d.src.Close()
	d.pool.Close()
	return err
}
