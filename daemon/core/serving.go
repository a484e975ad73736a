package core

import (
	"context"
	"errors"
	"sync"
	"time"

	"vigil/store"
)

// serving is what the local interface needs of the appliance beside its work: tokens, figures, and news of the audit log.
type serving struct {
	tokens  tokenTable
	figures figures
	news    news
}

// news wakes those who wait for events. A change is told by closing the channel that they wait on.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns the channel that is closed at the next change.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

// tell wakes everybody who waits.
func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// Event is one entry of the audit log as the local interface shows it: what happened, without who asked for it. It holds no
// name and no template.
type Event struct {
	Seq     uint64         `json:"seq"` // from 1, without holes
	Time    time.Time      `json:"time"`
	Type    string         `json:"type"` // "decision", "enroll", "subject.delete", "model.import" and so on
	Subject string         `json:"subject,omitempty"`
	Detail  map[string]any `json:"detail,omitempty"`
}

// Events returns up to limit durable events behind the sequence number after, oldest first. Errors: store.ErrCorrupt.
func (a *Appliance) Events(ctx context.Context, after uint64, limit int) ([]Event, error) {
	var list []Event
	err := a.store.View(ctx, func(tx *store.Tx) error {
		entries, err := tx.Audit(after+1, limit)
		for _, e := range entries {
			delete(e.Detail, "by")
			list = append(list, Event{Seq: e.Seq, Time: e.Time, Type: e.Type, Subject: e.Subject, Detail: e.Detail})
		}
		return err
	})
	return list, err
}

// LastEvent is the sequence number of the latest durable event, 0 for none.
func (a *Appliance) LastEvent() uint64 { return a.store.AuditEnd() }

// News returns a channel that is closed when there are new events, or when the appliance closes. Ask for it before Events,
// so that none is missed.
func (a *Appliance) News() <-chan struct{} { return a.serving.news.next() }

// Ready is nil while the device can recognise somebody, else why it cannot.
func (a *Appliance) Ready() error {
	var why error
	for _, u := range a.units() {
		_, err := u.ready()
		if err == nil {
			return nil
		}
		if why == nil || errors.Is(why, ErrOff) {
			why = err
		}
	}
	return why
}

// Sensors lists the sensors with their state.
func (a *Appliance) Sensors() []SensorStatus {
	list := []SensorStatus{}
	for _, s := range a.allSensors() {
		list = append(list, s.status())
	}
	return list
}
