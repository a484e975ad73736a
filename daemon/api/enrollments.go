package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"vigil/daemon/core"
)

// Bounds of enrolments in progress. One that nobody adds to for a while is given up, its samples wiped.
const (
	maxEnrollments = 16
	enrollmentIdle = 2 * time.Minute
)

// enrollments holds the enrolments in progress.
type enrollments struct {
	idle time.Duration

	mu     sync.Mutex
	closed bool
	all    map[string]*enrollment
}

// enrollment is one in progress, of the client that began it.
type enrollment struct {
	*core.Enrollment
	id    string
	owner string
	timer *time.Timer
	busy  chan struct{} // a slot: one request at a time
	until time.Time
}

func newEnrollments(idle time.Duration) *enrollments {
	return &enrollments{idle: idle, all: map[string]*enrollment{}}
}

// add takes an enrolment over. Errors: errOverloaded when there are too many; then the caller keeps it.
func (s *enrollments) add(e *core.Enrollment, owner string) (*enrollment, error) {
	var random [16]byte
	rand.Read(random[:])
	one := &enrollment{Enrollment: e, id: hex.EncodeToString(random[:]), owner: owner, busy: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosing
	}
	if len(s.all) >= maxEnrollments {
		return nil, fmt.Errorf("%w: %d enrolments are in progress: finish or delete one", errOverloaded, len(s.all))
	}
	s.all[one.id] = one
	one.until = time.Now().Add(s.idle)
	one.timer = time.AfterFunc(s.idle, func() { s.remove(one) })
	return one, nil
}

// use returns an enrolment of this client for one request; the caller calls release. Errors: errNoEnrollment, errEnrollmentBusy.
func (s *enrollments) use(id, owner string) (_ *enrollment, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.all[id]
	if !ok || e.owner != owner {
		return nil, nil, fmt.Errorf("%w: %q: it was finished, given up, or silent for %v", errNoEnrollment, id, s.idle)
	}
	select {
	case e.busy <- struct{}{}:
	default:
		return nil, nil, errEnrollmentBusy
	}
	e.timer.Stop()
	return e, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		<-e.busy
		if s.all[id] == e {
			e.until = time.Now().Add(s.idle)
			e.timer.Reset(s.idle)
		}
	}, nil
}

// remove gives an enrolment up and wipes its samples.
func (s *enrollments) remove(e *enrollment) {
	s.mu.Lock()
	e.timer.Stop()
	delete(s.all, e.id)
	s.mu.Unlock()
	e.Close()
}

// close gives up all of them and takes no more.
func (s *enrollments) close() {
	s.mu.Lock()
	s.closed = true
	list := make([]*enrollment, 0, len(s.all))
	for _, e := range s.all {
		list = append(list, e)
	}
	s.mu.Unlock()
	for _, e := range list {
		s.remove(e)
	}
}

// count is how many are in progress.
func (s *enrollments) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// shown describes an enrolment. The caller has it in use, or has just made it.
func (s *enrollments) shown(e *enrollment) Enrollment {
	s.mu.Lock()
	until := e.until
	s.mu.Unlock()
	return Enrollment{ID: e.id, Modality: e.Modality(), Wanted: e.Wanted(), Expires: until.UTC()}
}

func (h *handler) beginEnrollment(r request) (any, error) {
	var q EnrollmentRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if q.Name != "" && q.Subject != "" {
		return nil, errTwoPeople
	}
	e, err := h.app.BeginEnrollment(r.Context(), core.Person{Name: q.Name, Subject: q.Subject}, q.Modality)
	if err != nil {
		return nil, err
	}
	one, err := h.enrollments.add(e, clientOf(r.Context()).key)
	if err != nil {
		e.Close()
		return nil, err
	}
	return h.enrollments.shown(one), nil
}

// withEnrollment calls fn with the enrolment of the path.
func (h *handler) withEnrollment(r request, fn func(*enrollment) (any, error)) (any, error) {
	e, release, err := h.enrollments.use(r.PathValue("id"), clientOf(r.Context()).key)
	if err != nil {
		return nil, err
	}
	defer release()
	return fn(e)
}

func (h *handler) showEnrollment(r request) (any, error) {
	return h.withEnrollment(r, func(e *enrollment) (any, error) { return h.enrollments.shown(e), nil })
}

func (h *handler) addSample(r request) (any, error) {
	var q MatchRequest
	pic, done, err := h.picture(r, &q)
	if err != nil {
		return nil, err
	}
	defer done()
	if q.Subject != "" || q.Modality != "" {
		return nil, fmt.Errorf("%w: the enrolment knows its person and modality already", errBadRequest)
	}
	return h.withEnrollment(r, func(e *enrollment) (any, error) { return e.Add(r.Context(), pic) })
}

func (h *handler) finishEnrollment(r request) (any, error) {
	return h.withEnrollment(r, func(e *enrollment) (any, error) {
		done, err := e.Finish(context.WithoutCancel(r.Context())) // the client may leave: the person is durable or is not
		if err == nil {
			h.enrollments.remove(e)
		}
		return done, err
	})
}

func (h *handler) dropEnrollment(r request) (any, error) {
	return h.withEnrollment(r, func(e *enrollment) (any, error) {
		h.enrollments.remove(e)
		return struct{}{}, nil
	})
}
