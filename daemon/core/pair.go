package core

import (
	"context"
	"errors"
	"time"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// paired gives the frames of a camera that were captured together with one of the infra-red camera beside it. It owns both.
type paired struct {
	*v4l2.Pair
	name   string       // of the infra-red camera
	camera *v4l2.Source // likewise
}

// PairStatus is what became of the pairing of two cameras.
type PairStatus struct {
	Sensor    string        `json:"sensor"`    // the infra-red camera
	Unmatched uint64        `json:"unmatched"` // frames of either that had no partner, and were not looked at
	Camera    *CameraStatus `json:"camera"`    // of the infra-red camera
}

// defaultWithin is half a frame's time of a camera whose rate nobody configured.
const defaultWithin = 17 * time.Millisecond

// within is how far apart two frames of a pair may be.
func within(c config.Sensor) time.Duration {
	switch {
	case c.InfraredWithin > 0:
		return time.Duration(c.InfraredWithin)
	case c.Rate > 0:
		return time.Duration(float64(time.Second) / c.Rate / 2)
	}
	return defaultWithin
}

// pairUp opens the infra-red camera beside a camera, if the configuration names one; else src comes back as it is. It owns src
// until then. Both are shared on the bus in front of the pair, with every frame of their drivers.
func (a *Appliance) pairUp(c config.Sensor, src sensors.Source) (_ sensors.Source, _ *paired, err error) {
	if c.Infrared == "" {
		return src, nil, nil
	}
	p := &paired{name: c.Infrared}
	open := []sensors.Source{src}
	defer func() {
		if err != nil {
			for _, s := range open {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	other, err := a.sensorConfig(c.Infrared)
	if err != nil {
		return nil, nil, err
	}
	second, err := a.openDriver(other)
	if err != nil {
		return nil, nil, err
	}
	p.camera, _ = second.(*v4l2.Source)
	if open = append(open, second); p.camera == nil {
		return nil, nil, errors.New("only cameras can be paired")
	}
	for i, name := range []string{c.Name, c.Infrared} {
		if open[i], err = a.bus.tap(open[i], name); err != nil {
			open = append(open[:i], open[i+1:]...) // tap has closed it
			return nil, nil, err
		}
	}
	if p.Pair, err = v4l2.NewPair(open[0], open[1], within(c)); err != nil {
		return nil, nil, err
	}
	return p, p, nil
}

// Next implements sensors.Source: the frame of the colour camera.
func (p *paired) Next(ctx context.Context) (*sensors.Frame, error) {
	colour, infrared, err := p.Pair.Next(ctx)
	if err != nil {
		return nil, err
	}
	infrared.Release()
	return colour, nil
}

// status is nil for a camera that stands alone.
func (p *paired) status() *PairStatus {
	if p == nil {
		return nil
	}
	return &PairStatus{p.name, p.Unmatched(), cameraStatus(p.camera)}
}
