package core

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"vigil/fleet"
	"vigil/infer/sched"
	"vigil/sensors"
	"vigil/store"
)

// health knows what is wrong and when each vital part last proved that it works.
type health struct {
	now func() time.Time

	mu      sync.Mutex
	trouble map[string]string // part: reason
	notes   map[string]string // part: what every surface must say
	proofs  map[string]time.Time
	floor   time.Time // surely passed
}

// What a live device proves.
const (
	proofPipeline = "pipeline" // a frame or a heartbeat went through the models
	proofStore    = "store"    // a write was made durable
	proofTPM      = "tpm"      // the TPM answered
)

func newHealth(now func() time.Time) *health {
	return &health{now: now, trouble: map[string]string{}, notes: map[string]string{}, proofs: map[string]time.Time{}}
}

func (h *health) degrade(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble[part] = err.Error()
}

func (h *health) recover(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.trouble, part)
}

func (h *health) note(part, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes[part] = text
}

func (h *health) proved(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proofs[part] = time.Now()
}

func (h *health) provedSince(part string, t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proofs[part].After(t)
}

func (h *health) timeFloor() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.floor
}

func (h *health) list(m map[string]string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for part, reason := range m {
		out = append(out, part+": "+reason)
	}
	slices.Sort(out)
	return out
}

// Status is everything an operator asks a device first. It holds no personal data.
type Status struct {
	Device     string            `json:"device"`
	Version    string            `json:"version"`
	State      string            `json:"state"` // ready, degraded
	Degraded   []string          `json:"degraded,omitempty"`
	Notes      []string          `json:"notes,omitempty"`
	Started    time.Time         `json:"started"`
	TPM        string            `json:"tpm"`
	Runtime    string            `json:"runtime,omitempty"`
	Models     []ModelStatus     `json:"models,omitempty"` // in use, one a modality
	Subjects   int               `json:"subjects"`         // people
	Sensors    []SensorStatus    `json:"sensors,omitempty"`
	Actuators  []ActuatorStatus  `json:"actuators,omitempty"`
	Latency    []Latency         `json:"latency,omitempty"`
	Outbox     store.OutboxStats `json:"outbox"`
	Fleet      *fleet.Status     `json:"fleet,omitempty"`
	APIWaiting int               `json:"api_waiting"`
	Bus        *BusStatus        `json:"bus,omitempty"` // nil while frames are not shared
}

// ModelStatus is a bundle in use and its gallery.
type ModelStatus struct {
	Modality  string `json:"modality"`
	ID        string `json:"id"`
	BuiltIn   bool   `json:"built_in,omitempty"`
	Subjects  int    `json:"subjects"` // who can be recognised by it
	Templates int    `json:"templates"`
	// Elder is the bundle before it, which still answers for the Left people who are enrolled with it alone.
	Elder    string      `json:"elder,omitempty"`
	Left     int         `json:"left,omitempty"`
	CatchUp  *Progress   `json:"catch_up,omitempty"`  // how far their templates are made again from kept pictures
	LastSwap *SwapReport `json:"last_swap,omitempty"` // the latest exchange, or the attempt at one, since the start
}

// status describes the bundle at work; false if there is none and none was tried.
func (u *Unit) status() (m ModelStatus, ok bool) {
	u.mu.Lock()
	m.Modality, m.LastSwap, m.CatchUp = u.kind, u.lastSwap, u.progress
	u.mu.Unlock()
	g := u.now()
	if g == nil {
		return m, m.LastSwap != nil
	}
	m.ID, m.BuiltIn = g.id, g.builtIn
	m.Subjects, m.Templates = g.gallery.Len()
	if g.elder != nil {
		m.Elder, m.Left = g.elder.id, g.elder.gallery.Missing(g.gallery)
	}
	return m, true
}

// Status describes the appliance.
func (a *Appliance) Status() Status {
	info := a.device.TPMInfo()
	s := Status{
		Device: a.DeviceID(), Version: Version, State: "ready", Started: a.started.UTC(),
		Degraded: a.health.list(a.health.trouble), Notes: a.health.list(a.health.notes),
		TPM:     strings.TrimSpace(fmt.Sprintf("%s %s", info.Manufacturer, info.Firmware)),
		Latency: a.stats.Latencies(), Outbox: a.store.OutboxStats(),
	}
	if a.runtime != nil {
		s.Runtime = a.runtime.Name()
	}
	s.Bus = a.bus.status()
	for _, u := range a.units() {
		s.APIWaiting += u.queue.Waiting(sched.API)
		if m, ok := u.status(); ok {
			s.Models = append(s.Models, m)
		}
	}
	err := a.store.View(context.Background(), func(tx *store.Tx) (err error) {
		s.Subjects, _, err = tx.Count()
		return err
	})
	if err != nil {
		a.health.degrade("store", err)
	}
	for _, sn := range a.allSensors() {
		s.Sensors = append(s.Sensors, sn.status())
	}
	for _, o := range a.allOutputs() {
		s.Actuators = append(s.Actuators, o.show())
	}
	if l := a.fleet.link.Load(); l != nil {
		st := l.Status()
		s.Fleet = &st
		if !st.Connected {
			s.Degraded = append(s.Degraded, "fleet: not connected: "+st.LastError)
		}
	}
	if len(s.Degraded) > 0 {
		s.State = "degraded"
	}
	return s
}

// Prove makes every vital part do real work: a frame through the models (a blank one if no sensor's frame passed
// since), a durable write, a TPM command. It returns what failed to. The watchdog is fed only after it.
func (a *Appliance) Prove(ctx context.Context, since time.Time) error {
	if err := a.device.Ping(); err != nil {
		a.health.degrade("tpm", err)
		return fmt.Errorf("tpm: %w", err)
	}
	a.health.recover("tpm")
	a.health.proved(proofTPM)
	beat := make([]byte, 8)
	rand.Read(beat)
	if err := a.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(settingBeat, beat) }); err != nil {
		a.health.degrade("store", err)
		return fmt.Errorf("store: %w", err)
	}
	a.health.recover("store")
	a.health.proved(proofStore)
	if a.health.provedSince(proofPipeline, since) {
		return nil
	}
	for _, u := range a.units() {
		if u.now() == nil {
			continue
		}
		if err := u.heartbeat(ctx); err != nil {
			a.health.degrade("model", err)
			return fmt.Errorf("%s pipeline: %w", u.kind, err)
		}
	}
	if !slices.ContainsFunc(a.units(), (*Unit).lacking) {
		a.health.recover("model")
	}
	a.health.proved(proofPipeline)
	return nil
}

// lacking reports whether the unit should work and cannot.
func (u *Unit) lacking() bool { return u.now() == nil && !errors.Is(u.why(), ErrOff) }

// heartbeat sends a blank frame through the models.
func (u *Unit) heartbeat(ctx context.Context) error {
	const side = 64
	blank := sensors.Frame{
		Sensor: "heartbeat", Width: side, Height: side, Format: sensors.Gray8,
		Planes: [2]sensors.Plane{{Data: make([]byte, side*side), StrideBytes: side}},
	}
	return u.do(ctx, sched.Sensor, time.Time{}, &turn{frame: &blank, then: func(*turn) error { return nil }})
}

// keepTime remembers the time once a minute and watches the clock.
func (a *Appliance) keepTime(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		a.checkClock()
		if err := a.saveTimes(); err != nil {
			a.health.degrade("store", err)
			a.log.Error("cannot remember the time", "err", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// curveMinutes is how often latency curves are stored.
const curveMinutes = 5

// keepTending looks after the units once a minute, and after every exchange of models.
func (a *Appliance) keepTending(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for i := 0; ; {
		for _, u := range a.units() {
			u.tend(ctx, i > 0 && i%curveMinutes == 0)
		}
		select {
		case <-t.C:
			i++
		case <-a.swapped:
		case <-ctx.Done():
			return
		}
	}
}

// tend does what a unit needs now and then.
func (u *Unit) tend(ctx context.Context, keep bool) {
	if keep {
		u.keepCurve(ctx)
	}
	if err := u.catchUp(ctx); err != nil && ctx.Err() == nil {
		u.app.log.Error("cannot make templates again", "modality", u.kind, "err", err)
	}
	if err := u.retireElder(ctx); err != nil {
		u.app.log.Error("cannot let the model before go", "modality", u.kind, "err", err)
	}
}
