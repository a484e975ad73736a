package fleettest

import (
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"vigil/fleet"
)

const (
	managerTimeout = 5 * time.Second
	managerRetry   = 25 * time.Millisecond
)

// ManagerConfig is what a Manager needs. All of it but Now is required.
type ManagerConfig struct {
	Addr      string // of the broker, "host:port"
	TLS       *tls.Config
	Tenant    string
	Authority *fleet.Authority // the caller closes it
	Key       hpke.PrivateKey  // opens what devices seal
	Now       func() time.Time // default time.Now
}

// Event is one record of a device, opened, seen for the first time.
type Event struct {
	Device  string
	Origin  string
	ID      uint64
	Session uint64
	Class   string
	Body    []byte
}

// Manager is a management side: it sees all devices of a tenant, opens what they sealed, drops repeats by id, sends signed
// commands and waits for their results. It reconnects by itself. Everything it saw is kept in memory until Close.
type Manager struct {
	cfg    ManagerConfig
	filter string
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	client   mqtt.Client   // nil while not subscribed
	events   []Event
	seen     map[string]bool
	births   map[string]fleet.Birth
	states   map[string]fleet.State
	results  map[string]fleet.Result // by command id, the first that is no repeat of the record
	repeats  int
	rejected int
}

// NewManager starts to connect; Ready waits for it.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	filter, err := fleet.SubscribeAll(cfg.Tenant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Manager{
		cfg: cfg, filter: filter, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}),
		seen: map[string]bool{}, births: map[string]fleet.Birth{}, states: map[string]fleet.State{}, results: map[string]fleet.Result{},
	}
	go m.run(ctx)
	return m, nil
}

// Close disconnects and waits for the manager's goroutine.
func (m *Manager) Close() {
	m.cancel()
	<-m.done
}

// Ready waits until the manager is connected and subscribed.
func (m *Manager) Ready(ctx context.Context) error {
	return m.Await(ctx, func() bool { return m.connection() != nil })
}

// Await waits until cond is true; it is asked after each change of what the manager knows.
func (m *Manager) Await(ctx context.Context, cond func() bool) error {
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("cannot wait longer for the fleet: %w", ctx.Err())
		}
	}
}

// Events returns what arrived so far, each record once, in order of arrival. Results are among them.
func (m *Manager) Events() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Event(nil), m.events...)
}

// Birth returns the newest birth message of a device.
func (m *Manager) Birth(device string) (fleet.Birth, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.births[device]
	return b, ok
}

// State returns the newest state of a device; the late will of an older session is left out.
func (m *Manager) State(device string) (fleet.State, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.states[device]
	return s, ok
}

// Counts returns how many repeats were dropped and how many messages could not be read or opened.
func (m *Manager) Counts() (repeats, rejected int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.repeats, m.rejected
}

// Command makes a command with a fresh id that lives for an hour from now. args is encoded as JSON; nil means {}.
func (m *Manager) Command(device, name string, args any) (fleet.Command, error) {
	if args == nil {
		args = struct{}{}
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return fleet.Command{}, fmt.Errorf("cannot encode args: %w", err)
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return fleet.Command{}, fmt.Errorf("cannot make a command id: %w", err)
	}
	now := m.cfg.Now().Truncate(time.Second)
	return fleet.Command{
		ID: hex.EncodeToString(id), Tenant: m.cfg.Tenant, Device: device, Name: name, Args: raw,
		IssuedAt: now, Expires: now.Add(time.Hour),
	}, nil
}

// Send signs c and publishes it to its device; nil means that the broker has it.
func (m *Manager) Send(ctx context.Context, c fleet.Command) error {
	token, err := m.cfg.Authority.Sign(c)
	if err != nil {
		return err
	}
	return m.SendRaw(ctx, c.Device, []byte(token))
}

// SendRaw publishes payload on the command topic of device, as it is.
func (m *Manager) SendRaw(ctx context.Context, device string, payload []byte) error {
	topics, err := fleet.NewTopics(m.cfg.Tenant, device)
	if err != nil {
		return err
	}
	client := m.connection()
	if client == nil {
		return errors.New("cannot send a command: the manager is not connected")
	}
	return await(ctx, client.Publish(topics.Command(), 1, false, payload))
}

// Do sends c and waits for its result.
func (m *Manager) Do(ctx context.Context, c fleet.Command) (fleet.Result, error) {
	if err := m.Send(ctx, c); err != nil {
		return fleet.Result{}, err
	}
	var r fleet.Result
	err := m.Await(ctx, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		var ok bool
		r, ok = m.results[c.ID]
		return ok
	})
	return r, err
}

func (m *Manager) connection() mqtt.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.client
}

// change runs f under the lock and wakes all that wait.
func (m *Manager) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	retry := time.NewTicker(managerRetry)
	defer retry.Stop()
	for ctx.Err() == nil {
		m.once(ctx)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
	}
}

// once makes one connection and holds it until it is lost or ctx ends. Failures are retried by run.
func (m *Manager) once(ctx context.Context) {
	lost := make(chan struct{})
	o := mqtt.NewClientOptions().AddBroker("tls://" + m.cfg.Addr).
		SetProtocolVersion(4).SetClientID(m.cfg.Tenant + "/" + ManagementName).SetCleanSession(false).
		SetAutoReconnect(false).SetConnectRetry(false).SetTLSConfig(m.cfg.TLS).
		SetConnectTimeout(managerTimeout).SetWriteTimeout(managerTimeout).
		SetDefaultPublishHandler(func(_ mqtt.Client, msg mqtt.Message) { m.receive(msg.Topic(), msg.Payload()) }).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(lost) })
	o.Dialer.Timeout = managerTimeout
	client := mqtt.NewClient(o)
	if await(ctx, client.Connect()) != nil {
		client.Disconnect(0)
		return
	}
	if await(ctx, client.Subscribe(m.filter, 1, nil)) == nil {
		m.change(func() { m.client = client })
		select {
		case <-ctx.Done():
		case <-lost:
		}
		m.change(func() { m.client = nil })
	}
	client.Disconnect(uint(managerTimeout.Milliseconds()))
}

func await(ctx context.Context, token mqtt.Token) error {
	ctx, cancel := context.WithTimeout(ctx, managerTimeout)
	defer cancel()
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return fmt.Errorf("cannot reach the broker: %w", ctx.Err())
	}
}

func (m *Manager) receive(topic string, payload []byte) {
	topics, leaf, err := fleet.ParseUp(topic)
	if err == nil {
		switch leaf {
		case "birth":
			err = m.receiveBirth(topics, payload)
		case "state":
			err = m.receiveState(topics, payload)
		default:
			err = m.receiveRecord(topics, payload)
		}
	}
	if err != nil {
		m.change(func() { m.rejected++ })
	}
}

func (m *Manager) receiveBirth(t fleet.Topics, payload []byte) error {
	var b fleet.Birth
	if err := json.Unmarshal(payload, &b); err != nil {
		return err
	}
	m.change(func() {
		if b.Session >= m.births[t.Device()].Session {
			m.births[t.Device()] = b
		}
	})
	return nil
}

func (m *Manager) receiveState(t fleet.Topics, payload []byte) error {
	var s fleet.State
	if err := json.Unmarshal(payload, &s); err != nil {
		return err
	}
	m.change(func() {
		if s.Session >= m.states[t.Device()].Session {
			m.states[t.Device()] = s
		}
	})
	return nil
}

func (m *Manager) receiveRecord(t fleet.Topics, payload []byte) error {
	e, err := fleet.ParseEnvelope(payload)
	if err != nil {
		return err
	}
	body, err := fleet.OpenEvent(m.cfg.Key, e.Binding(t), e.Body)
	if err != nil {
		return err
	}
	var result fleet.Result
	if e.Class == fleet.ClassResult {
		if result, err = fleet.ParseResult(body); err != nil {
			return err
		}
	}
	key := fmt.Sprintf("%s/%s/%s/%d", t.Device(), e.Origin, e.Class, e.ID)
	m.change(func() {
		if m.seen[key] {
			m.repeats++
			return
		}
		m.seen[key] = true
		m.events = append(m.events, Event{Device: t.Device(), Origin: e.Origin, ID: e.ID, Session: e.Session, Class: e.Class, Body: body})
		if result.ID != "" {
			m.results[result.ID] = result // the newest answer; a repeat of a command is answered again
		}
	})
	return nil
}
