package core

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/replay"
	"vigil/sensors/session"
	"vigil/sensors/synth"
	"vigil/sensors/uart"
	"vigil/sensors/v4l2"
)

// opened is a source at work.
type opened struct {
	src    sensors.Source
	newest *sensors.Newest // nil where no frame may be dropped
	camera *v4l2.Source    // the driver, if it is one
	pair   *paired         // around camera, if it has an infra-red camera beside it
	module *uart.Source    // likewise
}

// openSource opens a sensor, shared with other processes where the configuration says so.
func (a *Appliance) openSource(c config.Sensor) (o opened, err error) {
	driver, err := a.openDriver(c)
	if err != nil {
		return o, fmt.Errorf("sensor %s: %w", c.Name, err)
	}
	o.camera, _ = driver.(*v4l2.Source)
	driver, o.pair, err = a.pairUp(c, driver)
	if err != nil {
		return o, fmt.Errorf("sensor %s: %w", c.Name, err)
	}
	o.module, _ = driver.(*uart.Source)
	if a.wrap != nil {
		driver = a.wrap(c, driver)
	}
	if o.src = driver; o.pair == nil { // who has a pair taps in front of it
		if o.src, err = a.bus.tap(driver, c.Name); err != nil {
			return o, err
		}
	}
	if c.Driver == config.DriverSynth || c.Step || c.Modality == Finger { // a fingerprint reader loses no touch
		if c.Driver == config.DriverV4L2 {
			o.src = newDecoded(o.src)
		}
		return o, nil
	}
	o.newest = sensors.NewNewest(o.src)
	if o.src = o.newest; c.Driver == config.DriverV4L2 {
		o.src = newDecoded(o.newest)
	}
	return o, nil
}

// openDriver opens what the driver of a sensor reads from.
func (a *Appliance) openDriver(c config.Sensor) (sensors.Source, error) {
	if c.Driver == config.DriverSynth {
		return synth.NewSource(synthOptions(c))
	}
	if c.Driver == config.DriverUART {
		src, err := openUART(c)
		if err != nil {
			return nil, err // not a nil *uart.Source as a sensors.Source
		}
		return src, nil
	}
	if c.Driver == config.DriverFprint {
		return nil, errors.New("fprintd gives answers and no pictures")
	}
	if c.Driver == config.DriverV4L2 {
		return openCamera(c)
	}
	if filepath.Ext(c.Path) == SessionExt {
		return session.Open(c.Path, sessionKeys{a}, session.Options{Name: c.Name, Speed: c.Speed, Step: c.Step, Now: a.now})
	}
	return replay.Open(replay.Options{
		Name: c.Name, Path: c.Path, Rate: c.Rate, Speed: c.Speed, Step: c.Step, Loop: c.Loop, Repeat: c.Repeat,
		Width: c.Width, Height: c.Height,
	})
}

// synthOptions are those of a reader with nobody at it.
func synthOptions(c config.Sensor) synth.SourceOptions {
	im := synth.Preset(synth.Severity(slices.Index(config.Severities, c.Severity)))
	if c.Width > 0 && c.Height > 0 {
		im.Width, im.Height = c.Width, c.Height
	}
	if c.DPI > 0 {
		im.DPI = c.DPI
	}
	return synth.SourceOptions{
		Name: c.Name, Seed: uint64(c.Seed), Fingers: c.Fingers, Impressions: c.Impressions, FirstTouch: uint64(c.FirstTouch),
		Rate: c.Rate, Impression: im,
	}
}

// reopen replaces a source that failed by a new one; while that cannot be had, the failed one stays.
func (s *sensor) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	o, err := s.app.openSource(s.cfg)
	if err != nil {
		s.reason = err.Error()
		return
	}
	if err := s.src.Close(); err != nil {
		s.app.log.Warn("failed source does not close", "sensor", s.cfg.Name, "err", err)
	}
	if s.newest != nil {
		s.dropped += s.newest.Dropped()
	}
	s.opened, s.connects, s.firsts = o, 0, o.cameras()
}
