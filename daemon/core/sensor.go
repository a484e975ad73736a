package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/infer/sched"
	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// sensor drives one source: frames in, decisions out.
type sensor struct {
	app  *Appliance
	unit *Unit
	cfg  config.Sensor
	opened
	factor  *factor // of a reader that gives answers and no frames; else nil
	cancel  context.CancelFunc
	turn    turn
	gen     *generation // that the tracker follows with
	tracker *decide.Tracker
	seen    []decide.Observation
	found   []decide.Event // in a turn
	arrived time.Time      // when the source handed the frame out
	resume  time.Time      // nothing is decided before; see commitPause
	events  []decide.Event

	frames, skipped, malformed, stale, unannounced, copies atomic.Uint64

	way way // latencies since capture

	mu        sync.Mutex
	closed    bool
	dropped   uint64 // by sources that were replaced
	advised   string // guidance of the latest frame
	base      string // of the source: running, failed, ended, or what a camera is (v4l2.State)
	state     string // base, or unstable
	reason    string
	incidents incidents
	connects  uint64         // of the cameras, when they were last asked
	firsts    uint64         // connects that lie ahead and are no trouble
	told      uint64         // troubles since connects
	session   *enrollSession // an enrolment that takes this sensor's frames
	ended     chan struct{}  // closed when the loop is over
}

// Start opens the configured sensors and the fleet link and lets them run until Close. It returns when they are up; a
// sensor that cannot be opened or a broker that cannot be reached degrades the device and does not fail Start; models that
// are there and cannot be used as configured do. Errors: ErrModelChoice, ErrNoLiveness, those of a bundle.
func (a *Appliance) Start(ctx context.Context) error {
	if a.cancel != nil {
		return errors.New("cannot start the appliance twice")
	}
	if err := a.startable(); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	a.running.Go(func() { a.keepTime(ctx) })
	a.running.Go(func() { a.keepTending(ctx) })
	a.startActuators(ctx)
	if err := a.bus.open(&a.cfg.Bus); err != nil { // who looks on is no reason not to work
		a.log.Error("frames are not shared", "err", err)
		a.health.degrade("bus", err)
	}
	partners := config.Partners(a.cfg.Sensors)
	for _, c := range a.cfg.Sensors {
		if partners[c.Name] {
			continue // opened with the camera that it belongs to
		}
		if err := a.AddSensor(ctx, c); err != nil {
			a.log.Error("sensor cannot be opened", "sensor", c.Name, "err", err)
			a.health.degrade("sensor "+c.Name, err)
		}
	}
	return a.startFleet(ctx)
}

// AddSensor opens one more sensor and runs it until its recording ends or the appliance closes.
func (a *Appliance) AddSensor(ctx context.Context, c config.Sensor) error {
	if c.Driver == config.DriverFprint {
		a.addFactor(ctx, c)
		return nil
	}
	u, err := a.Unit(c.Modality)
	if err != nil {
		return err
	}
	g, err := u.ready()
	if err != nil {
		return err
	}
	o, err := a.openSource(c)
	if err != nil {
		return err
	}
	s := &sensor{
		app: a, unit: u, cfg: c, opened: o, base: stateRunning, state: stateRunning, incidents: newIncidents(storms), ended: make(chan struct{}),
	}
	s.firsts = o.cameras()
	s.prepare(g)
	ctx, s.cancel = context.WithCancel(sched.WithClass(ctx, sched.Sensor)) // for engines that merge runs
	a.sensorMu.Lock()
	a.sensors = append(a.sensors, s)
	a.sensorMu.Unlock()
	a.running.Go(func() { s.run(ctx) })
	return nil
}

// StopSensor closes a sensor, waits for its loop and forgets it. Errors: ErrNoSensor.
func (a *Appliance) StopSensor(name string) error {
	s, err := a.sensor(name)
	if err != nil {
		return err
	}
	a.sensorMu.Lock()
	a.sensors = slices.DeleteFunc(a.sensors, func(o *sensor) bool { return o == s })
	a.sensorMu.Unlock()
	err = s.close()
	<-s.ended
	a.health.recover("sensor " + name)
	return err
}

func (a *Appliance) allSensors() []*sensor {
	a.sensorMu.Lock()
	defer a.sensorMu.Unlock()
	return slices.Clone(a.sensors)
}

// WaitSensor blocks until the sensor's recording has ended and everything of it is decided.
func (a *Appliance) WaitSensor(ctx context.Context, name string) error {
	s, err := a.sensor(name)
	if err != nil {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Appliance) sensor(name string) (*sensor, error) {
	for _, s := range a.allSensors() {
		if s.cfg.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoSensor, name)
}

// close ends the loop and the source it reads from.
func (s *sensor) close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.src.Close()
}

// source is the present source, and whether it is a camera in trouble.
func (s *sensor) source() (src sensors.Source, troubled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src, s.camera != nil && s.state != stateRunning
}

// retryDelay is how long a failed source rests before it is asked again, in seconds 1, 2, 4 ... up to 30.
func retryDelay(failures int) time.Duration {
	return min(time.Second<<min(failures, 5), 30*time.Second)
}

// run is the sensor's loop. It ends with the recording, the source or the context.
func (s *sensor) run(ctx context.Context) {
	defer close(s.ended)
	defer s.tracker.Reset()
	for failures := 0; ctx.Err() == nil; {
		f, err := s.next(ctx)
		var skipped *sensors.SkippedError
		switch {
		case err == nil:
			failures = 0
			s.arrived = time.Now()
			s.note(ctx, stateRunning, nil)
			s.frame(ctx, f)
			f.Release()
		case errors.As(err, &skipped):
			s.skipped.Add(1)
			s.app.log.Warn("sensor skipped a broken picture", "sensor", s.cfg.Name, "err", err)
		case errors.Is(err, io.EOF):
			s.note(ctx, stateEnded, nil)
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, sensors.ErrUnplugged):
			s.note(ctx, string(v4l2.StateOf(err)), err)
		default:
			failures++
			s.note(ctx, stateFailed, err)
			select {
			case <-time.After(retryDelay(failures)):
				s.reopen()
			case <-ctx.Done():
			}
		}
	}
}
