package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/infer/face"
	"vigil/infer/sched"
	"vigil/sensors"
	"vigil/sensors/replay"
	"vigil/sensors/session"
	"vigil/sensors/synth"
	"vigil/sensors/uart"
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

// opened is a source at work.
type opened struct {
	src    sensors.Source
	newest *sensors.Newest // nil where no frame may be dropped
	camera *v4l2.Source    // the driver, if it is one
	pair   *paired         // around camera, if it has an infra-red camera beside it
	module *uart.Source    // likewise
}

// SensorStatus is what people see of a sensor.
type SensorStatus struct {
	Name      string `json:"name"`
	Driver    string `json:"driver"`
	Modality  string `json:"modality"`
	State     string `json:"state"` // running, failed, ended; unplugged, busy, swapped, fake, refused, denied, unsuited, stalled; unstable
	Reason    string `json:"reason,omitempty"`
	Frames    uint64 `json:"frames"`    // processed
	Dropped   uint64 `json:"dropped"`   // overwritten by a newer one before their turn
	Skipped   uint64 `json:"skipped"`   // broken pictures
	Malformed uint64 `json:"malformed"` // frames that the pipeline refused
	Stale     uint64 `json:"stale"`     // given up because they took longer than policy.frame_deadline
	// Unannounced counts strangers that are no decisions, because policy.audit_unknown is off.
	Unannounced uint64 `json:"unannounced"`
	// Guidance is what the largest face or finger of the latest frame should do, as a code ("come_closer"); empty where it is
	// good, or nobody is there.
	Guidance string `json:"guidance,omitempty"`
	// Copies is how often the pixels of the processed frames were copied on this machine before the models' input was made of
	// them: 0 for cameras that write into shared memory.
	Copies    uint64 `json:"copies"`
	Falls     uint64 `json:"falls"`               // times that the sensor stopped delivering
	Unaudited uint64 `json:"unaudited,omitempty"` // of these and of the recoveries, those left out of the audit log
	// Way is how long after its capture a frame was how far.
	Way    []Latency     `json:"way,omitempty"`
	Camera *CameraStatus `json:"camera,omitempty"` // of the driver v4l2
	Pair   *PairStatus   `json:"pair,omitempty"`   // of a camera with an infra-red camera beside it
	Module *ModuleStatus `json:"module,omitempty"` // of the driver uart
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

// note is told of every frame (running), of every trouble (err), of the end, and, with the state that it was, of time that
// passes. What is news of it is audited. A camera that is not the pinned one may be an attack, as may be one that is claimed
// by somebody else or taken away.
func (s *sensor) note(ctx context.Context, state string, err error) {
	s.mu.Lock()
	list := s.follow(time.Now(), state, err)
	s.set(state, err)
	s.mu.Unlock()
	for _, i := range list {
		i.detail["sensor"] = s.cfg.Name
		if err := s.app.audit(ctx, "sensor."+i.kind, "", i.detail, true); err != nil {
			s.app.log.Error("trouble of a sensor is not audited", "sensor", s.cfg.Name, "kind", i.kind, "err", err)
		}
	}
}

// follow tells the incidents. The caller holds the lock.
func (s *sensor) follow(now time.Time, state string, err error) []incident {
	i := &s.incidents
	if err != nil {
		before := i.falls
		list := i.fall(now, state, err.Error())
		s.told += i.falls - before
		return list
	}
	list := i.lost(now, s.hidden())
	switch state {
	case stateRunning:
		return append(list, i.frame(now)...)
	case stateEnded:
		return list
	}
	return append(list, i.calm(now)...)
}

// set changes the state that people see; no state is that of before. Trouble degrades the device. The caller holds the lock.
func (s *sensor) set(state string, err error) {
	if state == "" {
		state = s.base
	}
	if err != nil {
		s.reason = err.Error()
	}
	s.base = state
	shown := s.incidents.shown(time.Now(), state)
	if s.state == shown {
		return
	}
	s.state, s.advised = shown, ""
	part := "sensor " + s.cfg.Name
	if shown == stateRunning || shown == stateEnded {
		s.reason = ""
		s.app.health.recover(part)
		s.app.log.Info("sensor is "+shown, "sensor", s.cfg.Name)
		return
	}
	trouble := s.reason
	if shown == stateUnstable {
		trouble = fmt.Sprintf("unstable: it came and went %d times", s.incidents.falls)
		if s.reason != "" {
			trouble += ", the last time because " + s.reason
		}
	}
	s.app.health.degrade(part, errors.New(trouble))
	s.app.log.Error("sensor is "+shown, "sensor", s.cfg.Name, "err", trouble)
}

// frame takes one frame to its decisions. In steady state, when nothing is decided, it allocates nothing.
func (s *sensor) frame(ctx context.Context, f *sensors.Frame) {
	s.events = s.observe(ctx, f, s.events[:0])
	for i := range s.events {
		s.announce(ctx, f, &s.events[i])
	}
}

// prepare gives the sensor what it decides with.
func (s *sensor) prepare(g *generation) {
	s.seen, s.events = make([]decide.Observation, 0, face.MaxFaces), make([]decide.Event, 0, face.MaxFaces)
	s.turn.then = s.look
	s.adopt(g)
}

// adopt begins anew with a bundle: faces that were followed with another cannot be told apart with this one.
func (s *sensor) adopt(g *generation) {
	if s.tracker != nil {
		s.tracker.Reset()
	}
	s.gen, s.tracker = g, decide.NewTracker(&g.policy, g.dim)
}

// deadline is until when a frame is worth looking at; zero where none may be lost.
func (s *sensor) deadline(f *sensors.Frame) time.Time {
	if s.unit.kind == Finger || s.cfg.Step || s.enrolling() != nil {
		return time.Time{}
	}
	return f.Captured.Add(time.Duration(s.app.cfg.Policy.FrameDeadline))
}

// observe runs the frame through pipeline, gallery and tracker.
func (s *sensor) observe(ctx context.Context, f *sensors.Frame, events []decide.Event) []decide.Event {
	s.turn.frame, s.turn.dpi, s.found = f, s.cfg.DPI, events
	err := s.unit.do(ctx, sched.Sensor, s.deadline(f), &s.turn)
	s.turn.frame = nil
	switch {
	case err == nil:
		return s.found
	case errors.Is(err, ErrBusy):
		s.stale.Add(1)
	case s.unit.now() != nil:
		s.malformed.Add(1)
		if ctx.Err() == nil {
			s.app.log.Warn("frame was not processed", "sensor", s.cfg.Name, "frame", f.Seq, "err", err)
		}
	}
	return events
}

// lookedAt sees every frame behind the pipeline; nil but in tests.
var lookedAt func(*sensors.Frame)

// look is what a sensor does in its turn, on the worker's goroutine while its own waits.
func (s *sensor) look(t *turn) error {
	a, u, f := s.app, s.unit, t.frame
	if s.gen != t.gen {
		s.adopt(t.gen)
	}
	s.frames.Add(1)
	s.copies.Add(uint64(f.Copies))
	s.way.look(t, s.arrived)
	if lookedAt != nil {
		lookedAt(f)
	}
	if f.Captured.Before(s.resume) {
		return nil
	}
	s.guide(t.seen)
	if session := s.enrolling(); session != nil {
		session.offer(t)
		return nil
	}
	born := f.Captured
	if u.kind == Finger {
		born = s.arrived // a serial line takes seconds for a print, which is none the worse for it
	}
	if age := time.Since(born); age > time.Duration(a.cfg.Policy.FrameDeadline) {
		s.stale.Add(1)
		return nil
	}
	if u.kind == Finger {
		s.found = s.touch(t, s.found)
		return nil
	}
	s.seen = s.seen[:0]
	for i := range t.seen {
		p := &t.seen[i]
		o := decide.Observation{Box: p.box, Values: p.values, Scale: p.scale, Quality: p.quality}
		o.Liveness, o.HasLiveness = p.liveness, p.hasLiveness
		if !p.attack {
			found := t.search(p)
			o.Subject, o.Score = found.subject, found.as(t.gen, identifyThreshold)
		}
		s.seen = append(s.seen, o)
	}
	a.stats.observe(StageFrame, time.Since(f.Captured))
	if len(t.seen) > 0 {
		s.way.mark(StageMatch, time.Since(f.Captured))
	}
	s.found = s.tracker.Observe(f.Captured, s.seen, s.found)
	s.way.mark(StageDecided, time.Since(f.Captured))
	return nil
}

// guide remembers what the person in front should do.
func (s *sensor) guide(seen []presentation) {
	code := ""
	if len(seen) > 0 {
		code = seen[0].guidance
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advised = code
}

// touch decides about a finger at once: a reader gives one frame of each touch, and nobody is followed from one to the
// next.
func (s *sensor) touch(t *turn, events []decide.Event) []decide.Event {
	f := t.frame
	for i := range t.seen {
		d := t.judge(&t.seen[i])
		events = append(events, decide.Event{
			Outcome: d.Outcome, Subject: d.Subject, Score: d.Score, Quality: d.Quality, Frames: 1, First: f.Captured, Last: f.Captured,
		})
	}
	s.app.stats.observe(StageFrame, time.Since(f.Captured))
	s.way.mark(StageMatch, time.Since(f.Captured))
	s.way.mark(StageDecided, time.Since(f.Captured))
	return events
}

// commitPause is how long a sensor decides nothing after a decision could not be recorded, so that a full disk is not
// hammered at the rate of the camera.
const commitPause = time.Second

// announce makes an event of the tracker a decision.
func (s *sensor) announce(ctx context.Context, f *sensors.Frame, e *decide.Event) {
	if e.Outcome == decide.NoMatch && !s.app.cfg.Policy.AuditUnknown {
		s.unannounced.Add(1)
		return
	}
	d := Decision{
		Operation: decide.Identify, Outcome: e.Outcome, Subject: e.Subject, Score: e.Score, Quality: e.Quality,
		Threshold: s.gen.policy.IdentifyThreshold, Model: s.gen.id, Sensor: s.cfg.Name, Frames: e.Frames, Label: f.Label,
	}
	if e.HasLiveness {
		d.Liveness = &Liveness{Score: e.Liveness, Threshold: s.gen.policy.LivenessThreshold}
	}
	if err := s.unit.commit(ctx, &d); err != nil {
		s.app.log.Error("decision lost its place", "sensor", s.cfg.Name, "err", err)
		s.tracker.Reset() // nothing was announced, so the person counts as not seen and is decided anew
		s.resume = time.Now().Add(commitPause)
		return
	}
	s.app.stats.observe(StageDecision, time.Since(f.Captured))
	s.way.mark(StageDurable, time.Since(f.Captured))
}

func (s *sensor) enrolling() *enrollSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session
}

// status describes the sensor.
func (s *sensor) status() SensorStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SensorStatus{
		Name: s.cfg.Name, Driver: s.cfg.Driver, Modality: s.unit.kind, State: s.state, Reason: s.reason, Frames: s.frames.Load(),
		Skipped: s.skipped.Load(), Malformed: s.malformed.Load(), Stale: s.stale.Load(), Unannounced: s.unannounced.Load(),
		Dropped: s.dropped, Guidance: s.advised, Copies: s.copies.Load(), Falls: s.incidents.falls, Unaudited: s.incidents.unaudited,
		Way: s.way.latencies(), Camera: cameraStatus(s.camera), Module: moduleStatus(s.module),
		Pair: s.pair.status(),
	}
	st.State = s.incidents.shown(time.Now(), s.base)
	if s.newest != nil {
		st.Dropped += s.newest.Dropped()
	}
	return st
}
