package fleet_test

import (
	"context"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"vigil/fleet"
	"vigil/fleet/fleettest"
)

const (
	tenant  = "acme"
	device  = "gate-7"
	patient = 20 * time.Second // bound of every wait; reached only when something is broken
)

// memOutbox is an Outbox in memory that can be told to fail.
type memOutbox struct {
	mu      sync.Mutex
	next    uint64
	records []fleet.Record
	deleted []uint64
	failing int                     // deletes that fail from now on
	damaged map[uint64]bool         // records that cannot be read
	swap    map[uint64]fleet.Record // replaces a record once it was handed out: the outbox dropped it in flight
	changed chan struct{}
}

func newOutbox() *memOutbox { return &memOutbox{changed: make(chan struct{}, 1)} }

func (o *memOutbox) add(class, payload string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.records = append(o.records, fleet.Record{ID: o.next, Class: class, Payload: []byte(payload)})
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.next
}

func (o *memOutbox) OutboxNext(after uint64, max int) ([]fleet.Record, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []fleet.Record
	for _, r := range o.records {
		if r.ID <= after || len(out) == max {
			continue
		}
		if o.damaged[r.ID] && len(out) == 0 {
			return nil, &fleet.DamagedRecord{ID: r.ID, Err: errors.New("bad tag")}
		}
		if o.damaged[r.ID] {
			break
		}
		out = append(out, r)
	}
	for i, r := range o.records {
		if marker, ok := o.swap[r.ID]; ok && slices.ContainsFunc(out, func(x fleet.Record) bool { return x.ID == r.ID }) {
			o.records[i] = marker
			delete(o.swap, r.ID)
		}
	}
	return out, nil
}

func (o *memOutbox) OutboxDelete(ids ...uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failing > 0 {
		o.failing--
		return errors.New("disk is full")
	}
	o.records = slices.DeleteFunc(o.records, func(r fleet.Record) bool { return slices.Contains(ids, r.ID) })
	o.deleted = append(o.deleted, ids...)
	return nil
}

func (o *memOutbox) OutboxChanged() <-chan struct{} { return o.changed }

func (o *memOutbox) ids() (left, deleted []uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.records {
		left = append(left, r.ID)
	}
	return left, slices.Clone(o.deleted)
}

// ledger executes commands effectively once, in memory.
type ledger struct {
	mu      sync.Mutex
	done    map[string][sha256.Size]byte
	effects int
	failing int           // Executes that fail from now on
	gate    chan struct{} // if set, Execute waits for it
}

func newLedger() *ledger { return &ledger{done: map[string][sha256.Size]byte{}} }

func (l *ledger) Execute(ctx context.Context, c fleet.Command) (json.RawMessage, bool, error) {
	if l.gate != nil {
		select {
		case <-l.gate:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing > 0 {
		l.failing--
		return nil, false, errors.New("disk is full")
	}
	answer := json.RawMessage(fmt.Sprintf(`{"did":%q}`, c.Name))
	if digest, ok := l.done[c.ID]; ok {
		if digest != c.Digest() {
			return nil, false, fleet.ErrConflict
		}
		return answer, true, nil
	}
	l.done[c.ID] = c.Digest()
	l.effects++
	return answer, false, nil
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.effects
}

// audits collects what Deps.Audit is told.
type audits struct {
	mu   sync.Mutex
	list []fleet.Refusal
}

func (a *audits) add(_ context.Context, r fleet.Refusal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, r)
	return nil
}

func (a *audits) all() []fleet.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.list)
}

// world is one fleet: a CA, keys, and the parts of one device.
type world struct {
	pki       *fleettest.PKI
	identity  fleettest.Identity
	authority *fleet.Authority
	key       hpke.PrivateKey

	outbox  *memOutbox
	ledger  *ledger
	audits  *audits
	session uint64
	replies int // Replies that fail from now on
	mu      sync.Mutex
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{outbox: newOutbox(), ledger: newLedger(), audits: &audits{}}
	var err error
	if w.pki, err = fleettest.NewPKI(time.Now()); err != nil {
		t.Fatal(err)
	}
	w.identity = w.device(t, device)
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.authority, err = fleet.NewAuthority(private); err != nil {
		t.Fatal(err)
	}
	if w.key, err = fleet.ManagementKEM().GenerateKey(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) device(t *testing.T, name string) fleettest.Identity {
	t.Helper()
	id, err := w.pki.Device(tenant, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// config returns a configuration with short times.
func (w *world) config(t *testing.T, addr string) fleet.Config {
	t.Helper()
	cfg, err := w.pki.ClientTLS(w.identity)
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Config{
		Tenant: tenant, Device: device, Broker: "tls://" + addr, TLS: cfg,
		ManagementKey: w.key.PublicKey().Bytes(), CommandKeys: []ed25519.PublicKey{w.authority.Public()},
		Origin: "store-1", Software: "1.2.3", Started: time.Unix(1700000000, 0),
		BackoffBase: 5 * time.Millisecond, BackoffLimit: 50 * time.Millisecond,
		ConnectTimeout: 5 * time.Second, WriteTimeout: 3 * time.Second, AckTimeout: 5 * time.Second, CloseTimeout: 3 * time.Second,
	}
}

func (w *world) deps() fleet.Deps {
	return fleet.Deps{
		Outbox: w.outbox, Executor: w.ledger, Audit: w.audits.add,
		Reply: func(_ context.Context, r fleet.Result) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.replies > 0 {
				w.replies--
				return errors.New("disk is full")
			}
			payload, err := r.Encode()
			if err == nil {
				w.outbox.add(fleet.ClassResult, string(payload))
			}
			return err
		},
		NextSession: func(context.Context) (uint64, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.session++
			return w.session, nil
		},
		Models: func() []string { return []string{"face-1"} },
	}
}

// running is a Link in its goroutine.
type running struct {
	*fleet.Link
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
}

// start runs a link; the test's cleanup stops it.
func start(t *testing.T, cfg fleet.Config, deps fleet.Deps) *running {
	t.Helper()
	l, err := fleet.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Link: l, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- l.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends the link in order and waits for it.
func (r *running) stop() {
	r.once.Do(func() {
		r.cancel()
		select {
		case err := <-r.done:
			if err != nil {
				r.t.Errorf("Run returned %v", err)
			}
		case <-time.After(patient):
			r.t.Error("Run did not return")
		}
	})
}

// manager starts a management client; the test's cleanup closes it.
func (w *world) manager(t *testing.T, addr string) *fleettest.Manager {
	t.Helper()
	id, err := w.pki.Management(tenant)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := w.pki.ClientTLS(id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := fleettest.NewManager(fleettest.ManagerConfig{Addr: addr, TLS: cfg, Tenant: tenant, Authority: w.authority, Key: w.key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := m.Ready(bounded(t)); err != nil {
		t.Fatal(err)
	}
	return m
}

// proxy starts a proxy for the world's device; the test's cleanup closes it.
func (w *world) proxy(t *testing.T, addr string) *fleettest.Proxy {
	t.Helper()
	x, err := fleettest.NewProxy(w.pki, w.identity, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a condition of the device's side, which signals nobody.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patient); !cond(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// until waits for a condition of what the manager knows.
func until(t *testing.T, m *fleettest.Manager, what string, cond func() bool) {
	t.Helper()
	if err := m.Await(bounded(t), cond); err != nil {
		repeats, rejected := m.Counts()
		t.Fatalf("%s: %v (%d events, %d repeats, %d rejected)", what, err, len(m.Events()), repeats, rejected)
	}
}

// eventIDs returns the ids of the events of one class, in order of arrival.
func eventIDs(m *fleettest.Manager, class string) []uint64 {
	var out []uint64
	for _, e := range m.Events() {
		if e.Class == class {
			out = append(out, e.ID)
		}
	}
	return out
}
