package core

import (
	"context"
	"errors"
	"time"

	"vigil/daemon/decide"
	"vigil/infer/face"
	"vigil/infer/sched"
	"vigil/sensors"
)

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
