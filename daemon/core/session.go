package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// sampleGap is the least time between two faces of a session: neighbouring frames teach nothing new. Every touch of a
// finger is new.
const sampleGap = 250 * time.Millisecond

// enrollSession collects samples of one person at a sensor.
type enrollSession struct {
	want int
	done chan struct{} // closed when there are enough

	mu      sync.Mutex
	closed  bool
	samples []sample
	last    time.Time
	hint    string // why the latest frame gave no sample
	attacks attackCount
}

// offer is called by the sensor in the turn of every frame.
func (e *enrollSession) offer(t *turn) {
	u := t.unit
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.samples) >= e.want || u.kind == Face && time.Since(e.last) < sampleGap {
		return
	}
	s, err := t.takeSample(&e.attacks)
	if err != nil {
		e.hint = err.Error()
		return
	}
	e.samples, e.last, e.hint = append(e.samples, s), time.Now(), ""
	if len(e.samples) == e.want {
		close(e.done)
	}
}

// EnrollAt takes the person in front of a sensor into the gallery. It blocks until enough good frames were seen, the
// policy's time is over (ErrSamples, with the last advice) or the context ends; meanwhile the sensor decides nothing.
// Errors beside: ErrNoSensor, ErrSensorBusy, and those of Enroll.
func (a *Appliance) EnrollAt(ctx context.Context, name, sensorName string) (Enrolled, error) {
	return a.EnrollPersonAt(ctx, Person{Name: name}, sensorName)
}

// EnrollPersonAt is EnrollAt for a new or a known person.
func (a *Appliance) EnrollPersonAt(ctx context.Context, who Person, sensorName string) (Enrolled, error) {
	if err := a.checkPerson(ctx, who); err != nil {
		return Enrolled{}, err
	}
	s, err := a.sensor(sensorName)
	if err != nil {
		return Enrolled{}, err
	}
	if s.factor != nil {
		return a.enrollFactor(ctx, who, s)
	}
	g, err := s.unit.ready()
	if err != nil {
		return Enrolled{}, err
	}
	session := &enrollSession{want: g.policy.EnrollSamples, done: make(chan struct{})}
	if !s.begin(session) {
		return Enrolled{}, ErrSensorBusy
	}
	defer session.wipe()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.Policy.EnrollTimeout))
	defer cancel()
	select {
	case <-session.done:
	case <-s.ended:
		err = errors.New("the sensor ended")
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.end()
	samples, attacks, hint := session.close()
	if err := s.unit.recordAttacks(context.WithoutCancel(ctx), sensorName, &attacks); err != nil {
		return Enrolled{}, err
	}
	if err != nil && len(samples) < session.want {
		return Enrolled{}, fmt.Errorf("%w: %d of %d good frames at sensor %s (%w); last advice: %s",
			ErrSamples, len(samples), session.want, sensorName, err, hint)
	}
	return s.unit.finishEnrollment(context.WithoutCancel(ctx), who, samples, Enrolled{}, &attacks)
}

// close ends the session and returns what it has. A frame that is on its way adds nothing, and waits for nothing that is
// done with the samples.
func (e *enrollSession) close() ([]sample, attackCount, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return e.samples, e.attacks, e.hint
}

func (s *sensor) begin(session *enrollSession) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return false
	}
	s.session = session
	return true
}

func (s *sensor) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = nil
}

func (e *enrollSession) wipe() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.samples {
		e.samples[i].wipe()
	}
}
