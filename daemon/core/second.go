package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/sensors"
	"vigil/sensors/fprint"
	"vigil/sensors/v4l2"
	"vigil/store"
)

// Second is what came of a second factor: a finger that fprintd compares, beside our own comparison.
type Second struct {
	Sensor string `json:"sensor"`
	Result string `json:"result"` // match, no_match, not_enrolled, timeout, busy, unavailable
}

// Results of a second factor.
const (
	secondMatch       = "match"
	secondNoMatch     = "no_match"
	secondNotEnrolled = "not_enrolled"
	secondTimeout     = "timeout" // nobody touched the reader in time
	secondBusy        = "busy"    // somebody else uses the reader
	secondUnavailable = "unavailable"
)

// secondFinger is what fprintd calls the print of an enrolment. Which finger it is matters to nobody: any is compared.
const secondFinger = "right-index-finger"

// secondLook is how often somebody looks whether the reader is there; fprintd tells of none that comes.
const secondLook = 30 * time.Second

// secondUser is the name under which fprintd keeps the prints of a person.
func secondUser(subject string) string { return "vigil-" + subject }

// factor is the reader of a sensor that gives no frames but answers. It stands in for its source.
type factor struct{ *fprint.Reader }

// Next implements sensors.Source: there never is a frame.
func (f factor) Next(ctx context.Context) (*sensors.Frame, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// addFactor begins to watch a reader of fprintd.
func (a *Appliance) addFactor(ctx context.Context, c config.Sensor) {
	f := &factor{fprint.Open(c.Path)}
	s := &sensor{
		app: a, unit: a.finger, cfg: c, opened: opened{src: f}, factor: f, base: stateRunning, state: stateRunning,
		incidents: newIncidents(storms), ended: make(chan struct{}),
	}
	ctx, s.cancel = context.WithCancel(ctx)
	a.sensorMu.Lock()
	a.sensors = append(a.sensors, s)
	a.sensorMu.Unlock()
	a.running.Go(func() { s.watchFactor(ctx) })
}

// watchFactor looks whether the reader is there, until the sensor is closed.
func (s *sensor) watchFactor(ctx context.Context) {
	defer close(s.ended)
	t := time.NewTicker(secondLook)
	defer t.Stop()
	for {
		soon, cancel := context.WithTimeout(ctx, secondLook/2)
		_, err := s.factor.Name(soon)
		cancel()
		if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return
		}
		s.factorIs(ctx, err)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// factorIs notes whether the reader works.
func (s *sensor) factorIs(ctx context.Context, err error) {
	switch {
	case err == nil:
		s.note(ctx, stateRunning, nil)
	case errors.Is(err, fprint.ErrNoDevice), errors.Is(err, fprint.ErrGone):
		s.note(ctx, string(v4l2.StateUnplugged), err)
	case errors.Is(err, fprint.ErrDenied):
		s.note(ctx, string(v4l2.StateDenied), err)
	default:
		s.note(ctx, stateFailed, err)
	}
}

// answered counts an operation and notes what it says of the reader. Who touches it, or does not, says nothing.
func (s *sensor) answered(ctx context.Context, err error) {
	s.frames.Add(1)
	if err == nil || errors.Is(err, fprint.ErrNotEnrolled) {
		s.factorIs(ctx, nil)
	} else if !errors.Is(err, fprint.ErrInUse) && ctx.Err() == nil {
		s.factorIs(ctx, err)
	}
}

// askSecond asks for the second factor of a match that the policy wants, and takes the match back without it. A wrong finger
// is no match, as a wrong face is; a reader that gives no answer is told apart, because nobody failed.
func (a *Appliance) askSecond(ctx context.Context, d *Decision) {
	name := a.cfg.Policy.SecondFactor
	if name == "" || d.Outcome != decide.Match {
		return
	}
	d.Second = &Second{name, a.second(ctx, name, d.Subject)}
	switch d.Second.Result {
	case secondMatch:
	case secondNoMatch:
		d.Outcome = decide.NoMatch
	default:
		d.Outcome = decide.NoSecondFactor
	}
}

func (a *Appliance) second(ctx context.Context, name, subject string) string {
	s, err := a.sensor(name)
	if err != nil || s.factor == nil {
		return secondUnavailable
	}
	soon, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.Policy.SecondTimeout))
	defer cancel()
	match, err := s.factor.Verify(soon, secondUser(subject), func(status string) {
		a.log.Debug("second factor", "sensor", name, "status", status)
	})
	s.answered(soon, err)
	switch {
	case err == nil && match:
		return secondMatch
	case err == nil:
		return secondNoMatch
	case errors.Is(err, fprint.ErrNotEnrolled):
		return secondNotEnrolled
	case errors.Is(err, fprint.ErrInUse):
		return secondBusy
	case soon.Err() != nil:
		return secondTimeout
	}
	a.log.Error("second factor gives no answer", "sensor", name, "err", err)
	return secondUnavailable
}

// enrollFactor enrols a known person's finger with fprintd, which keeps its print under a name made of the subject's id.
func (a *Appliance) enrollFactor(ctx context.Context, who Person, s *sensor) (Enrolled, error) {
	if who.Subject == "" {
		return Enrolled{}, fmt.Errorf("%w: sensor %s is a second factor: enrol the person elsewhere first, then name the subject", store.ErrInvalid, s.cfg.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.Policy.EnrollTimeout))
	defer cancel()
	e := Enrolled{Subject: who.Subject, Samples: 1}
	err := s.factor.Enroll(ctx, secondUser(who.Subject), secondFinger, func(string) { e.Samples++ })
	s.answered(ctx, err)
	switch {
	case errors.Is(err, fprint.ErrInUse):
		return Enrolled{}, fmt.Errorf("%w: %w", ErrSensorBusy, err)
	case ctx.Err() != nil:
		return Enrolled{}, fmt.Errorf("%w: the finger was not enrolled in time at sensor %s: %w", ErrSamples, s.cfg.Name, ctx.Err())
	case err != nil:
		return Enrolled{}, fmt.Errorf("%w: sensor %s: %w", ErrSamples, s.cfg.Name, err)
	}
	err = a.audit(context.WithoutCancel(ctx), "second factor enrolled", who.Subject, map[string]any{"sensor": s.cfg.Name}, true)
	if err != nil { // what is not recorded does not count
		return Enrolled{}, errors.Join(err, s.factor.Delete(context.WithoutCancel(ctx), secondUser(who.Subject)))
	}
	return e, nil
}

// eraseWait bounds how long an erasure waits for a reader.
const eraseWait = 5 * time.Second

// eraseFactors removes the prints of a person who was erased from every reader of fprintd. What cannot be removed is audited:
// it has to be done by hand.
func (a *Appliance) eraseFactors(ctx context.Context, subject string) {
	for _, s := range a.allSensors() {
		if s.factor == nil {
			continue
		}
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), eraseWait)
		err := s.factor.Delete(soon, secondUser(subject))
		cancel()
		if err == nil {
			continue
		}
		detail := map[string]any{"sensor": s.cfg.Name, "user": secondUser(subject), "reason": err.Error()}
		if err := a.audit(ctx, "second factor left", subject, detail, true); err != nil {
			a.log.Error("prints left with fprintd are not audited", "sensor", s.cfg.Name, "err", err)
		}
		a.log.Error("prints of an erased person are left with fprintd: fprintd-delete removes them", "sensor", s.cfg.Name, "user", secondUser(subject), "err", err)
	}
}
