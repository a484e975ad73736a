package core

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.bug.st/serial"

	"vigil/actuators"
	"vigil/actuators/gpio"
	"vigil/actuators/osdp"
	"vigil/actuators/wiegand"
	"vigil/daemon/config"
	"vigil/daemon/decide"
)

// Bounds of an output's grants.
const (
	outputQueue = 4               // that wait while one is acted on; more are refused and audited
	grantLife   = 5 * time.Second // a grant that waited for longer is refused: somebody else may stand there by now
)

// Defaults of the configuration.
const (
	defaultHold   = 3 * time.Second
	defaultWindow = 10 * time.Second
)

// output is one actuator at work: it turns durable decisions into grants, and acts on them one at a time. Each actuation
// is audited before it begins; what cannot be audited does not happen.
type output struct {
	app   *Appliance
	cfg   config.Actuator
	queue chan Decision // of its sensors, matches only
	open  func() (actuators.Actuator, error)

	pairs pairing // of the goroutine
	act   actuators.Actuator

	mu     sync.Mutex
	lost   []Decision // that did not fit the queue, to be audited
	status ActuatorStatus
	line   *osdp.Reader // act, if it is one
}

// States of an output.
const (
	outputReady  = "ready"
	outputActing = "acting"
	outputFailed = "failed" // tried again with the next grant
)

// ActuatorStatus is what people see of an output.
type ActuatorStatus struct {
	Name    string `json:"name"`
	Driver  string `json:"driver"`
	Sensor  string `json:"sensor"`                  // whose matches are grants
	Intent  string `json:"intent_sensor,omitempty"` // where the same person must match as well
	State   string `json:"state"`                   // ready, acting, failed
	Reason  string `json:"reason,omitempty"`
	Waiting int    `json:"waiting"` // matches in the queue
	// Grants since the start, by what became of them: acted on, refused before anything moved, failed at the device.
	Granted uint64    `json:"granted"`
	Refused uint64    `json:"refused"`
	Failed  uint64    `json:"failed"`
	Last    time.Time `json:"last,omitzero"` // when it moved last
	// Line is what came over an RS-485 line.
	Line *LineStatus `json:"line,omitempty"`
}

// LineStatus counts what an OSDP control panel sent.
type LineStatus struct {
	Secure      bool   `json:"secure"`       // a secure channel is open
	Sessions    uint64 `json:"sessions"`     // that were opened
	Frames      uint64 `json:"frames"`       // for this address
	Refused     uint64 `json:"refused"`      // of them
	Repeated    uint64 `json:"repeated"`     // asked for again
	BadChecksum uint64 `json:"bad_checksum"` // damaged on the way
	BadMAC      uint64 `json:"bad_mac"`      // of somebody without the key
	Foreign     uint64 `json:"foreign"`      // for other addresses
}

// show is the status.
func (o *output) show() ActuatorStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.status
	if o.line != nil {
		n := o.line.Stats()
		s.Line = &LineStatus{n.Secure, n.Sessions, n.Frames, n.Refused, n.Repeated, n.BadChecksum, n.BadMAC, n.Foreign}
	}
	s.Name, s.Driver, s.Sensor, s.Intent, s.Waiting = o.cfg.Name, o.cfg.Driver, o.cfg.Sensor, o.cfg.IntentSensor, len(o.queue)
	return s
}

// is notes the state.
func (o *output) is(state, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status.State, o.status.Reason = state, reason
	if state == outputActing {
		o.status.Last = o.app.now().UTC()
	}
}

// tally counts what became of a grant; acted on are those that are granted and did not fail.
func (o *output) tally(outcome string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch outcome {
	case "granted":
		o.status.Granted++
	case "refused":
		o.status.Refused++
	case "failed":
		o.status.Granted--
		o.status.Failed++
	}
}

// startActuators opens the configured outputs. One that cannot be opened degrades the device, and is tried again at its
// next grant.
func (a *Appliance) startActuators(ctx context.Context) {
	for _, c := range a.cfg.Actuators {
		o := &output{app: a, cfg: c, queue: make(chan Decision, outputQueue)}
		o.pairs = pairing{identity: c.Sensor, intent: c.IntentSensor, window: time.Duration(c.IntentWindow)}
		if o.pairs.window == 0 {
			o.pairs.window = defaultWindow
		}
		o.open = func() (actuators.Actuator, error) { return a.openActuator(c) }
		o.ready() //nolint:errcheck // it is said in the log and in health
		a.sensorMu.Lock()
		a.outputs = append(a.outputs, o)
		a.sensorMu.Unlock()
		a.running.Go(func() { o.run(ctx) })
	}
}

func (a *Appliance) allOutputs() []*output {
	a.sensorMu.Lock()
	defer a.sensorMu.Unlock()
	return slices.Clone(a.outputs)
}

// actuate offers a durable decision to the outputs. It never blocks.
func (a *Appliance) actuate(d *Decision) {
	if d.Outcome != decide.Match || d.Sensor == "" {
		return
	}
	for _, o := range a.outputs {
		if d.Sensor != o.cfg.Sensor && d.Sensor != o.cfg.IntentSensor {
			continue
		}
		select {
		case o.queue <- *d:
		default:
			o.mu.Lock()
			if len(o.lost) < outputQueue {
				o.lost = append(o.lost, *d)
			}
			o.mu.Unlock()
			a.log.Error("actuator is busy: a match moves nothing", "actuator", o.cfg.Name, "decision", d.ID)
		}
	}
}

// ready opens the actuator if it is not open.
func (o *output) ready() error {
	if o.act != nil {
		return nil
	}
	act, err := o.open()
	if err != nil {
		o.trouble(err)
		return err
	}
	o.act = act
	o.mu.Lock()
	o.line, _ = act.(*osdp.Reader)
	o.mu.Unlock()
	o.app.health.recover("actuator " + o.cfg.Name)
	o.is(outputReady, "")
	return nil
}

func (o *output) trouble(err error) {
	o.app.log.Error("actuator does not work", "actuator", o.cfg.Name, "err", err)
	o.app.health.degrade("actuator "+o.cfg.Name, err)
	o.is(outputFailed, err.Error())
}

// run acts until the context ends, and leaves the actuator in its safe state.
func (o *output) run(ctx context.Context) {
	defer func() {
		if o.act == nil {
			return
		}
		if err := o.act.Close(); err != nil {
			o.app.log.Error("actuator does not close", "actuator", o.cfg.Name, "err", err)
		}
	}()
	for {
		select {
		case d := <-o.queue:
			if g, ok := o.pairs.matched(d.Sensor, d.Subject, d.ID, d.Time); ok {
				o.grant(ctx, &d, g)
			}
		case <-ctx.Done():
			return
		}
		for _, d := range o.takeLost() {
			o.record(ctx, d.Subject, grant{decision: d.ID}, "refused", "too many matches wait") //nolint:errcheck // nothing moved; record says what is wrong
		}
	}
}

func (o *output) takeLost() []Decision {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost := o.lost
	o.lost = nil
	return lost
}

// record audits and publishes what becomes of a grant.
func (o *output) record(ctx context.Context, subject string, g grant, outcome, reason string) error {
	detail := map[string]any{"actuator": o.cfg.Name, "driver": o.cfg.Driver, "decision": g.decision, "outcome": outcome}
	if g.intent != "" {
		detail["intent"] = g.intent
	}
	if reason != "" {
		detail["reason"] = reason
	}
	err := o.app.audit(ctx, "actuation", subject, detail, true)
	if err != nil {
		o.app.health.degrade("store", err)
		o.app.log.Error("actuation is not recorded", "actuator", o.cfg.Name, "decision", g.decision, "err", err)
		return err
	}
	o.tally(outcome)
	return nil
}

// grant acts, or says why not.
func (o *output) grant(ctx context.Context, d *Decision, g grant) {
	refuse := func(reason string) { o.record(ctx, d.Subject, g, "refused", reason) } //nolint:errcheck // nothing moved
	card := uint64(o.cfg.Card)
	if n, ok := o.cfg.Cards[d.Subject]; ok {
		card = uint64(n)
	}
	age := o.app.now().Sub(d.Time)
	switch {
	case age > grantLife || age < 0:
		refuse(fmt.Sprintf("the match is %v old", age.Round(time.Second)))
		return
	case card == 0 && o.cfg.Driver != config.ActuatorRelay:
		refuse(actuators.ErrNoCard.Error())
		return
	}
	if err := o.ready(); err != nil {
		refuse(err.Error())
		return
	}
	if o.record(ctx, d.Subject, g, "granted", "") != nil {
		return
	}
	o.is(outputActing, "")
	err := o.act.Actuate(ctx, actuators.Grant{Decision: g.decision, Subject: d.Subject, Card: card})
	if err == nil || ctx.Err() != nil {
		o.app.log.Info("actuation", "actuator", o.cfg.Name, "decision", g.decision)
		o.app.health.recover("actuator " + o.cfg.Name)
		o.is(outputReady, "")
		return
	}
	o.record(ctx, d.Subject, g, "failed", err.Error()) //nolint:errcheck // said in the log and in health
	if errors.Is(err, osdp.ErrNotFetched) || errors.Is(err, osdp.ErrFull) {
		o.trouble(err) // the line is good, nobody polls
		return
	}
	o.trouble(errors.Join(err, o.act.Close()))
	o.act = nil
}

// openActuator opens what the configuration names.
func (a *Appliance) openActuator(c config.Actuator) (actuators.Actuator, error) {
	if a.actuatorOf != nil {
		return a.actuatorOf(c)
	}
	switch c.Driver {
	case config.ActuatorRelay:
		lines, err := gpio.Open(c.Chip, []int{c.Line}, c.ActiveLow, "vigild "+c.Name)
		if err != nil {
			return nil, err
		}
		hold := cmp.Or(time.Duration(c.Hold), defaultHold)
		return actuators.NewRelay(lines.Line(0), hold, nil, lines.Close)
	case config.ActuatorWiegand:
		lines, err := gpio.Open(c.Chip, []int{c.D0, c.D1}, c.ActiveLow, "vigild "+c.Name)
		if err != nil {
			return nil, err
		}
		return wiegand.New(lines.Line(0), lines.Line(1), wiegand.Options{
			Bits: cmp.Or(c.Bits, wiegand.Bits26), Facility: uint64(c.Facility), Free: lines.Close,
		})
	case config.ActuatorOSDP:
		return a.openOSDP(c)
	}
	return nil, fmt.Errorf("no driver %q", c.Driver)
}

func (a *Appliance) openOSDP(c config.Actuator) (actuators.Actuator, error) {
	key, err := readSCBK(c.KeyFile)
	if err != nil {
		return nil, err
	}
	port, err := serial.Open(c.Path, &serial.Mode{BaudRate: cmp.Or(c.Baud, 9600)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	id := osdp.Identity{Model: 1, Version: 1}
	sum := sha256.Sum256([]byte(a.DeviceID()))
	copy(id.Serial[:], sum[:])
	r, err := osdp.Serve(port, osdp.Options{
		Address: byte(c.Address), Identity: id, Key: key, Bits: cmp.Or(c.Bits, wiegand.Bits26), Facility: uint64(c.Facility),
	})
	if err != nil {
		return nil, errors.Join(err, port.Close())
	}
	return r, nil
}

// readSCBK reads the key of a secure channel; no path is no key.
func readSCBK(path string) (*[osdp.KeyBytes]byte, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no key is an answer
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key of the OSDP channel: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key of the OSDP channel: %s has mode %v: chmod 600: %w", path, info.Mode().Perm(), fs.ErrPermission)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key of the OSDP channel: %w", err)
	}
	defer clear(text)
	var key [osdp.KeyBytes]byte
	digits := strings.TrimSpace(string(text))
	if n, err := hex.Decode(key[:], []byte(digits[:min(len(digits), 2*osdp.KeyBytes)])); err != nil || n != osdp.KeyBytes || len(digits) != 2*osdp.KeyBytes {
		return nil, fmt.Errorf("key of the OSDP channel: %s must hold 32 hex digits", path)
	}
	return &key, nil
}
