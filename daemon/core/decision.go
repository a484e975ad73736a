package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"vigil/daemon/decide"
	"vigil/store"
)

// Decision is one decision about one person: what is audited, published and streamed. It holds no name and no template.
type Decision struct {
	ID        string           `json:"id"` // 32 hex digits, random; receivers drop repeats by it
	Time      time.Time        `json:"time"`
	Operation decide.Operation `json:"operation"`
	Outcome   decide.Outcome   `json:"outcome"`
	Subject   string           `json:"subject,omitempty"` // matched, or claimed
	Score     float32          `json:"score"`
	Threshold float32          `json:"threshold"`
	Quality   float32          `json:"quality"`
	Modality  string           `json:"modality"`
	Model     string           `json:"model"`
	Sensor    string           `json:"sensor,omitempty"` // empty for a picture of the API
	Frames    int              `json:"frames,omitempty"` // judged for this decision
	Until     time.Time        `json:"locked_until,omitzero"`
	Liveness  *Liveness        `json:"liveness,omitempty"` // where it was judged
	Second    *Second          `json:"second,omitempty"`   // where it was asked for
	Label     string           `json:"-"`                  // of the frame, where a recording knows one; never leaves the process
	// Assessment is of a picture of the API that was looked at; only its answer has it.
	Assessment *Assessment `json:"assessment,omitempty"`
}

// Liveness is how a face was judged before the comparison (ISO/IEC 30107-3).
type Liveness struct {
	Score     float32 `json:"score"`               // likelihood of a bona fide presentation, 0..1
	Threshold float32 `json:"threshold,omitempty"` // from which it counts as bona fide, where liveness is required
}

func (d *Decision) noteLiveness(p *presentation, threshold float32) {
	if p.hasLiveness {
		d.Liveness = &Liveness{Score: p.liveness, Threshold: threshold}
	}
}

// Classes of the outbox.
const (
	classDecision = "decision"
	classEvent    = "event"
	classResult   = "result"
)

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// commit notes the modality, and commits the decision.
func (u *Unit) commit(ctx context.Context, d *Decision) error {
	d.Modality = u.kind
	if g := u.now(); d.Model == "" && g != nil { // nothing was compared: a person who is locked
		d.Model = g.id
	}
	return u.app.commit(ctx, d)
}

// commit completes a decision, makes it durable with its audit entry, outbox record and the state of the lockouts, and
// only then announces it.
func (a *Appliance) commit(ctx context.Context, d *Decision) error {
	start := time.Now()
	d.ID, d.Time = newID(), a.now().UTC()
	published := *d
	published.Assessment = nil
	body, err := json.Marshal(&published)
	if err != nil {
		return fmt.Errorf("cannot encode decision: %w", err)
	}
	event := store.AuditEvent{Time: d.Time, Type: "decision", Subject: d.Subject, Detail: noteCaller(ctx, d.detail())}
	err = a.store.UpdateShared(ctx, func(tx *store.Tx) error {
		if _, err := tx.AppendAudit(event); err != nil {
			return err
		}
		if _, err := tx.AppendOutbox(classDecision, body); err != nil {
			return err
		}
		locks, err := a.locksState() // here, so that the last transaction holds the latest
		if err != nil {
			return err
		}
		return tx.Put(settingLocks, locks)
	})
	if err != nil {
		a.health.degrade("store", err)
		return fmt.Errorf("decision was not recorded and does not count: %w", err)
	}
	a.health.recover("store")
	a.stats.observe(StageCommit, time.Since(start))
	a.log.Info("decision", "id", d.ID, "operation", d.Operation, "outcome", d.Outcome, "subject", d.Subject,
		"sensor", d.Sensor, "score", d.Score)
	a.actuate(d)
	a.watchers.send(published)
	a.serving.news.tell()
	return nil
}

func (d *Decision) detail() map[string]any {
	m := map[string]any{
		"id": d.ID, "operation": d.Operation, "outcome": d.Outcome, "score": d.Score, "threshold": d.Threshold,
		"quality": d.Quality, "modality": d.Modality, "model": d.Model,
	}
	if d.Liveness != nil {
		m["liveness"], m["liveness_threshold"] = d.Liveness.Score, d.Liveness.Threshold
	}
	if d.Second != nil {
		m["second_sensor"], m["second_result"] = d.Second.Sensor, d.Second.Result
	}
	if d.Sensor != "" {
		m["sensor"], m["frames"] = d.Sensor, d.Frames
	}
	return m
}

// audit records something that is no decision, with an optional record for the fleet.
func (a *Appliance) audit(ctx context.Context, kind, subject string, detail map[string]any, publish bool) error {
	event := store.AuditEvent{Time: a.now().UTC(), Type: kind, Subject: subject, Detail: noteCaller(ctx, maps.Clone(detail))}
	body, err := json.Marshal(map[string]any{"id": newID(), "time": event.Time, "type": kind, "subject": subject, "detail": detail})
	if err != nil {
		return fmt.Errorf("cannot encode event: %w", err)
	}
	err = a.store.UpdateShared(ctx, func(tx *store.Tx) error {
		if _, err := tx.AppendAudit(event); err != nil || !publish {
			return err
		}
		_, err := tx.AppendOutbox(classEvent, body)
		return err
	})
	if err == nil {
		a.serving.news.tell()
	}
	return err
}

// Settings of the store.
const (
	settingLocks   = "lockouts"
	settingSession = "fleet-session"
	settingFloor   = "time-floor" // a time proved by a signed command
	settingSeen    = "time-seen"  // the clock's latest
	settingBeat    = "heartbeat"
)

func (a *Appliance) locksState() ([]byte, error) {
	a.locksMu.Lock()
	defer a.locksMu.Unlock()
	return json.Marshal(a.locks)
}

// clockSlack is how far the clock may lie behind the last time the store saw before that is called wrong.
const clockSlack = time.Minute

// restore reads the state that outlives a restart and notes a clock that was set back.
func (a *Appliance) restore() error {
	return a.store.View(context.Background(), func(tx *store.Tx) error {
		switch locks, err := tx.Get(settingLocks); {
		case err == nil:
			if err := json.Unmarshal(locks, a.locks); err != nil {
				return err
			}
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		var err error
		if a.health.floor, err = getTime(tx, settingSeen); err != nil {
			return err
		}
		if a.fleet.floor, err = getTime(tx, settingFloor); err != nil {
			return err
		}
		if a.fleet.floor.After(a.health.floor) {
			a.health.floor = a.fleet.floor
		}
		a.checkClock()
		return nil
	})
}

// checkClock degrades the device while its clock stands before a time that has surely passed.
func (a *Appliance) checkClock() {
	if floor := a.health.timeFloor(); a.now().Add(clockSlack).Before(floor) {
		a.health.degrade("clock", fmt.Errorf("the clock says %s, but it said %s before: set the time (NTP), or restart vigild if it is right now; certificates, commands and lockouts depend on it",
			a.now().UTC().Format(time.RFC3339), floor.UTC().Format(time.RFC3339)))
		return
	}
	a.health.recover("clock")
}

// getTime reads a time among the settings; the zero time if it was never written.
func getTime(tx *store.Tx, name string) (t time.Time, err error) {
	text, err := tx.Get(name)
	if errors.Is(err, store.ErrNotFound) {
		return t, nil
	}
	if err == nil {
		err = t.UnmarshalText(text)
	}
	if err != nil {
		return t, fmt.Errorf("setting %s in the store: %w", name, err)
	}
	return t, nil
}

// saveTimes remembers what the clock says, to notice when it is set back, and the latest time that a signed command
// proved to have passed. The two are kept apart: a clock that ran ahead for a while must not make the device refuse the
// fleet's commands until then.
func (a *Appliance) saveTimes() error {
	seen, err := a.now().UTC().MarshalText()
	if err != nil {
		return err
	}
	floor, err := a.fleet.timeFloor().UTC().MarshalText()
	if err != nil {
		return err
	}
	return a.store.Update(context.Background(), func(tx *store.Tx) error {
		return errors.Join(tx.Put(settingSeen, seen), tx.Put(settingFloor, floor))
	})
}
