package core_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vigil/actuators"
	"vigil/actuators/osdp/osdptest"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/sensors/uart/uarttest"
)

// door is an actuator that remembers what it was asked for.
type door struct {
	mu     sync.Mutex
	grants []actuators.Grant
	audits func() int // actuations that are audited
	ahead  bool       // each grant found its audit entry there
	fails  error
	closed int
}

func (d *door) Actuate(_ context.Context, g actuators.Grant) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grants = append(d.grants, g)
	d.ahead = d.audits() >= len(d.grants)
	return d.fails
}

func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed++
	return nil
}

// seen is what it was asked for so far.
func (d *door) seen() (grants []actuators.Grant, ahead bool, closed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.grants), d.ahead, d.closed
}

// openDoor opens an appliance of fingers with readers "reader" and "desk", one output, and Ann enrolled.
func openDoor(t *testing.T, c config.Actuator, d *door) (a *core.Appliance, ann string, touch func(reader string, finger int64)) {
	t.Helper()
	dev := daemontest.New(t)
	dev.Config.Models.Face = "off"
	dev.Config.Policy.FrameDeadline = config.Duration(time.Minute)
	c.Name, c.Sensor = "door", "reader"
	dev.Config.Actuators = []config.Actuator{c}
	o := core.Options{Logger: daemontest.Logger(t)}
	if d != nil {
		o.Actuator = func(config.Actuator) (actuators.Actuator, error) { return d, nil }
	}
	a = must[*core.Appliance](t)(core.Open(t.Context(), dev.Config, o))
	t.Cleanup(func() { closeApp(t, a) })
	if d != nil {
		d.audits = func() int { return len(a.Actuations(t)) }
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ann = must[core.Enrolled](t)(fingerUnit(t, a).Enroll(t.Context(), core.Person{Name: "Ann"}, easy(t, annIndex, 50, 3))).Subject
	return a, ann, func(reader string, finger int64) {
		t.Helper()
		s := config.Sensor{Name: reader, Driver: config.DriverSynth, Modality: core.Finger, Seed: finger, Fingers: 1, FirstTouch: 10}
		if err := errors.Join(a.AddSensor(t.Context(), s), a.WaitSensor(t.Context(), reader), a.StopSensor(reader)); err != nil {
			t.Fatal(err)
		}
	}
}

// outcomes waits until so many actuations are audited, and a little for one too many.
func outcomes(t *testing.T, a *core.Appliance, n int) (list []string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); len(a.Actuations(t)) < n && time.Now().Before(limit); {
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	for _, e := range a.Actuations(t) {
		list = append(list, e.Detail["outcome"].(string))
	}
	if len(list) != n {
		t.Errorf("actuations %v, want %d", list, n)
	}
	return list
}

// expectOutput compares what status and metrics say of the door; of the reason, a part.
func expectOutput(t *testing.T, a *core.Appliance, want core.ActuatorStatus) {
	t.Helper()
	s := a.Status().Actuators
	if len(s) != 1 || s[0].Name != "door" || s[0].Sensor != "reader" || s[0].State != want.State || s[0].Granted != want.Granted ||
		s[0].Refused != want.Refused || s[0].Failed != want.Failed || !strings.Contains(s[0].Reason, want.Reason) || s[0].Waiting != 0 {
		t.Errorf("the output is %+v, want %+v", s, want)
	}
	r := rig{t: t, app: a}
	if v, ok := r.metric("vigil_actuator_state", "actuator=door", "state="+want.State); !ok || v != 1 {
		t.Errorf("metrics do not tell that it is %s", want.State)
	}
	for outcome, n := range map[string]uint64{"granted": want.Granted, "refused": want.Refused, "failed": want.Failed} {
		if v, ok := r.metric("vigil_actuator_grants_total", "actuator=door", "outcome="+outcome); !ok || v != float64(n) {
			t.Errorf("metrics count %v grants that were %s, want %d", v, outcome, n)
		}
	}
}

func TestAMatchAtItsSensorMovesAnOutput(t *testing.T) {
	d := &door{}
	a, ann, touch := openDoor(t, config.Actuator{Driver: config.ActuatorRelay, Card: 7}, d)
	w := a.Watch()
	defer w.Stop()
	touch("reader", stranger)
	touch("desk", annIndex) // a match elsewhere
	outcomes(t, a, 0)
	<-w.C
	<-w.C
	touch("reader", annIndex)
	dec := <-w.C
	if got := outcomes(t, a, 1); got[0] != "granted" {
		t.Errorf("%v", got)
	}
	grants, ahead, _ := d.seen()
	if len(grants) != 1 || grants[0] != (actuators.Grant{Decision: dec.ID, Subject: ann, Card: 7}) || !ahead {
		t.Errorf("%+v, audited ahead: %v", grants, ahead)
	}
	expectOutput(t, a, core.ActuatorStatus{State: "ready", Granted: 1})
	if s := a.Status().Actuators[0]; s.Last.IsZero() {
		t.Error("the status does not say when it moved")
	}
	e := a.Actuations(t)[0]
	if e.Subject != ann || e.Detail["decision"] != dec.ID || e.Detail["actuator"] != "door" || e.Detail["intent"] != nil {
		t.Errorf("audited as %+v", e)
	}
}

func TestAnOutputWithTwoConditions(t *testing.T) {
	d := &door{}
	a, ann, touch := openDoor(t, config.Actuator{Driver: config.ActuatorRelay, IntentSensor: "desk", IntentWindow: config.Duration(10 * time.Minute)}, d)
	w := a.Watch()
	defer w.Stop()
	touch("reader", annIndex)
	identity := <-w.C
	outcomes(t, a, 0)
	touch("desk", stranger)
	<-w.C
	outcomes(t, a, 0)
	touch("desk", annIndex)
	intent := <-w.C
	outcomes(t, a, 1)
	e := a.Actuations(t)[0]
	grants, _, _ := d.seen()
	if e.Subject != ann || e.Detail["decision"] != identity.ID || e.Detail["intent"] != intent.ID || len(grants) != 1 {
		t.Errorf("audited as %+v; %+v", e, grants)
	}
	touch("desk", annIndex) // the identity is used up
	outcomes(t, a, 1)
}

func TestAnOutputThatFails(t *testing.T) {
	d := &door{fails: errors.New("the relay is stuck")}
	a, _, touch := openDoor(t, config.Actuator{Driver: config.ActuatorRelay}, d)
	touch("reader", annIndex)
	if got := outcomes(t, a, 2); got[1] != "failed" {
		t.Errorf("%v", got)
	}
	if s := a.Status(); s.State != "degraded" || !strings.Contains(strings.Join(s.Degraded, " "), "the relay is stuck") {
		t.Errorf("%s %v", s.State, s.Degraded)
	}
	expectOutput(t, a, core.ActuatorStatus{State: "failed", Reason: "the relay is stuck", Failed: 1})
	d.mu.Lock()
	d.fails = nil
	d.mu.Unlock()
	touch("reader", annIndex)
	outcomes(t, a, 3)
	_, _, closed := d.seen()
	if s := a.Status(); s.State != "ready" || closed != 1 {
		t.Errorf("%s %v, closed %d times", s.State, s.Degraded, closed)
	}
	expectOutput(t, a, core.ActuatorStatus{State: "ready", Granted: 1, Failed: 1})
}

func TestAnOutputThatIsNotThere(t *testing.T) {
	a, _, touch := openDoor(t, config.Actuator{Driver: config.ActuatorRelay, Chip: "/dev/gpiochip-that-is-not"}, nil)
	if s := a.Status(); s.State != "degraded" {
		t.Errorf("%s %v", s.State, s.Degraded)
	}
	expectOutput(t, a, core.ActuatorStatus{State: "failed", Reason: "gpiochip-that-is-not"})
	touch("reader", annIndex)
	if got := outcomes(t, a, 1); got[0] != "refused" {
		t.Errorf("%v", got)
	}
	expectOutput(t, a, core.ActuatorStatus{State: "failed", Reason: "gpiochip-that-is-not", Refused: 1})
}

func TestACardIsNeededAtAController(t *testing.T) {
	d := &door{}
	a, _, touch := openDoor(t, config.Actuator{Driver: config.ActuatorWiegand}, d)
	touch("reader", annIndex)
	got := outcomes(t, a, 1)
	if grants, _, _ := d.seen(); got[0] != "refused" || len(grants) != 0 {
		t.Errorf("%v, %v", got, grants)
	}
}

// TestFromATouchToAControlPanel: a match becomes a card that a panel fetches in its secure channel.
func TestFromATouchToAControlPanel(t *testing.T) {
	pty, err := uarttest.OpenPTY()
	if err != nil {
		t.Skip(err)
	}
	defer pty.Close()
	file := filepath.Join(t.TempDir(), "scbk")
	if err := os.WriteFile(file, []byte("000102030405060708090a0b0c0d0eff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _, touch := openDoor(t, config.Actuator{Driver: config.ActuatorOSDP, Path: pty.Path, Address: 9, KeyFile: file, Facility: 1, Card: 2}, nil)
	p := &osdptest.Panel{Port: pty.Master, Address: 9, Patience: 2 * time.Second}
	for i := range p.Key {
		p.Key[i] = byte(i)
	}
	p.Key[15] = 0xFF
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	cards := make(chan []byte, 4)
	var polling sync.WaitGroup
	polling.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
			code, data, err := p.Do(0x60)
			if err != nil {
				t.Errorf("poll: %v", err)
				return
			}
			if code == 0x50 {
				cards <- data
			}
		}
	})
	touch("reader", annIndex)
	if got := outcomes(t, a, 1); got[0] != "granted" {
		t.Errorf("%v", got)
	}
	select {
	case c := <-cards: // even parity 1, facility 1, card 2, odd parity 0
		if want := "\x00\x01\x1a\x00\x80\x80\x01\x00"; string(c) != want {
			t.Errorf("card % x, want % x", c, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("no card came")
	}
	if l := a.Status().Actuators[0].Line; l == nil || !l.Secure || l.Sessions != 1 || l.Frames == 0 {
		t.Errorf("the status of the line is %+v", l)
	}
	close(ended)
	polling.Wait()
}
