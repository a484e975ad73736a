package fleet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"vigil/fleet"
	"vigil/fleet/fleettest"
)

// broker is what the suite needs of a broker variant.
type broker interface {
	Addr() string
	Kill() error
	Restart() error
	Close() error
}

func startMochi(t *testing.T, w *world) broker {
	b, err := fleettest.NewBroker(w.pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func startMosquitto(t *testing.T, w *world) broker {
	b, err := fleettest.NewMosquitto(w.pki, tenant, t.TempDir())
	if errors.Is(err, fleettest.ErrNoMosquitto) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMochi(t *testing.T)     { suite(t, startMochi) }
func TestMosquitto(t *testing.T) { suite(t, startMosquitto) }

// suite is what both brokers must show.
func suite(t *testing.T, launch func(*testing.T, *world) broker) {
	for name, test := range map[string]func(*testing.T, *world, broker){
		"birth, state and will":                     testBirthAndWill,
		"records leave only on PUBACK":              testPuback,
		"broker killed mid-stream":                  testBrokerKilled,
		"certificate stays in its tree":             testACL,
		"broker refuses weak clients":               testWeakClients,
		"commands are answered once":                testCommands,
		"bad commands are refused and audited":      testBadCommands,
		"flood of bad commands":                     testFlood,
		"full queue loses nothing":                  testFullQueue,
		"oversized packet does not poison the link": testPoison,
		"trouble of the device":                     testTrouble,
		"broker sees ciphertext only":               testCiphertext,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b := launch(t, w)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, w, b)
		})
	}
}

func online(m *fleettest.Manager, name string, want bool, session uint64) func() bool {
	return func() bool {
		s, ok := m.State(name)
		return ok && s.Online == want && s.Session == session
	}
}

func testBirthAndWill(t *testing.T, w *world, b broker) {
	m, x := w.manager(t, b.Addr()), w.proxy(t, b.Addr())
	l := start(t, w.config(t, x.Addr()), w.deps())
	until(t, m, "online", online(m, device, true, 1))
	eventually(t, "link is up", func() bool { return l.Status().Connected })
	birth, _ := m.Birth(device)
	want := fleet.Birth{
		Version: 1, Tenant: tenant, Device: device, Session: 1, Software: "1.2.3",
		Started: time.Unix(1700000000, 0).UTC(), Models: []string{"face-1"},
	}
	if got, want := fmt.Sprint(birth), fmt.Sprint(want); got != want {
		t.Errorf("birth is %s, want %s", got, want)
	}

	x.Refuse(true)
	x.Cut()
	until(t, m, "will of session 1", online(m, device, false, 1))
	eventually(t, "link notices", func() bool { return !l.Status().Connected })
	x.Refuse(false)
	until(t, m, "online again", func() bool {
		s, _ := m.State(device)
		birth, _ := m.Birth(device)
		return s.Online && s.Session > 1 && birth.Session == s.Session
	})
	eventually(t, "link knows, too", func() bool { return l.Status().Connected }) // its birth is seen before it is acknowledged
	newest, _ := m.State(device)
	session := newest.Session

	m.Close() // a second client with this certificate would take the first one's session over
	late := w.manager(t, b.Addr())
	until(t, late, "retained birth and state", func() bool {
		birth, _ := late.Birth(device)
		return online(late, device, true, session)() && birth.Session == session
	})

	l.stop()
	until(t, late, "orderly offline", online(late, device, false, session))
	if s := l.Status(); s.Connected || s.Connects < 2 {
		t.Errorf("status after the end: %+v", s)
	}
}

func testPuback(t *testing.T, w *world, b broker) {
	m, x := w.manager(t, b.Addr()), w.proxy(t, b.Addr())
	cfg := w.config(t, x.Addr())
	cfg.AckTimeout = 400 * time.Millisecond
	cfg.Window = 4
	l := start(t, cfg, w.deps())
	until(t, m, "online", online(m, device, true, 1))
	eventually(t, "link is up", func() bool { return l.Status().Connected }) // its hello is acknowledged

	x.SwallowPubacks(true)
	for i := range 6 {
		w.outbox.add("decision", fmt.Sprintf(`{"n":%d}`, i+1))
	}
	eventually(t, "window is swallowed", func() bool { return x.Swallowed() >= 4 })
	if left, deleted := w.outbox.ids(); len(left) != 6 || len(deleted) != 0 {
		t.Fatalf("without PUBACK the outbox has %v and deleted %v", left, deleted)
	}
	until(t, m, "window arrived", func() bool { return len(eventIDs(m, "decision")) >= 4 })
	if got := eventIDs(m, "decision"); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
		t.Fatalf("a window of 4 let %v through", got)
	}
	eventually(t, "ack timeout", func() bool { return strings.Contains(l.Status().LastError, "acknowledge") })
	if left, _ := w.outbox.ids(); len(left) != 6 {
		t.Fatalf("the outbox lost records: %v left", left)
	}

	x.SwallowPubacks(false)
	eventually(t, "outbox is empty", func() bool { left, _ := w.outbox.ids(); return len(left) == 0 })
	until(t, m, "all arrived", func() bool { return len(eventIDs(m, "decision")) == 6 })
	if got := eventIDs(m, "decision"); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("records arrived as %v", got)
	}
	if _, deleted := w.outbox.ids(); !slices.Equal(deleted, []uint64{1, 2, 3, 4, 5, 6}) {
		t.Errorf("records were deleted as %v", deleted)
	}
	if repeats, rejected := m.Counts(); repeats < 4 || rejected != 0 {
		t.Errorf("%d repeats and %d rejected, want the window again with the same ids", repeats, rejected)
	}
	if s := l.Status(); s.Resent < 4 || s.Acknowledged != 6 {
		t.Errorf("resent %d, acknowledged %d", s.Resent, s.Acknowledged)
	}
}

func testBrokerKilled(t *testing.T, w *world, b broker) {
	const total = 300
	m, x := w.manager(t, b.Addr()), w.proxy(t, b.Addr())
	start(t, w.config(t, x.Addr()), w.deps())
	until(t, m, "online", online(m, device, true, 1))

	var wg sync.WaitGroup
	defer wg.Wait()
	quota := make(chan int, total) // the producer runs ahead only as far as the test lets it
	wg.Go(func() {
		for n := range quota {
			w.outbox.add("decision", fmt.Sprintf(`{"n":%d}`, n))
		}
	})
	sent := 0
	produce := func(n int) {
		for range n {
			sent++
			quota <- sent
		}
	}
	for range 3 {
		produce(total / 4)
		acked := func() int { _, deleted := w.outbox.ids(); return len(deleted) }
		before := acked()
		eventually(t, "stream flows", func() bool { return acked() > before })
		x.Refuse(true)
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
		produce(total / 16)
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := m.Ready(bounded(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "manager is on the new broker", func() bool { return managerAlive(t, m) })
		x.Refuse(false)
	}
	produce(total - sent)
	close(quota)
	eventually(t, "outbox is empty", func() bool { left, deleted := w.outbox.ids(); return len(left) == 0 && len(deleted) >= total })
	until(t, m, "everything arrived", func() bool { return len(delivered(m, b)) == total })
}

// managerAlive sends an unsigned nothing to a device that does not exist; the PUBACK shows that the connection is new.
func managerAlive(t *testing.T, m *fleettest.Manager) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	return m.SendRaw(ctx, "nobody", []byte("x")) == nil
}

// delivered returns the ids that reached the management side, or, for the broker in this process, the broker: mochi
// acknowledges before it forwards, so a kill in between loses what is no longer the device's to deliver.
func delivered(m *fleettest.Manager, b broker) map[uint64]bool {
	out := map[uint64]bool{}
	for _, id := range eventIDs(m, "decision") {
		out[id] = true
	}
	if mochi, ok := b.(*fleettest.Broker); ok {
		for _, c := range mochi.Captured() {
			if e, err := fleet.ParseEnvelope(c.Payload); err == nil && e.Class == "decision" {
				out[e.ID] = true
			}
		}
	}
	return out
}

// rawClient connects with a certificate and collects what it receives.
type rawClient struct {
	mqtt.Client
	mu  sync.Mutex
	got []string
}

func (w *world) raw(t *testing.T, addr string, id fleettest.Identity, clientID string) (*rawClient, error) {
	t.Helper()
	cfg, err := w.pki.ClientTLS(id)
	if err != nil {
		t.Fatal(err)
	}
	c := &rawClient{}
	o := mqtt.NewClientOptions().AddBroker("tls://" + addr).SetTLSConfig(cfg).SetProtocolVersion(4).SetClientID(clientID).
		SetAutoReconnect(false).SetConnectTimeout(5 * time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, m.Topic()+" "+string(m.Payload()))
		})
	c.Client = mqtt.NewClient(o)
	token := c.Connect()
	if !token.WaitTimeout(patient) {
		t.Fatal("CONNECT is not answered")
	}
	t.Cleanup(func() { c.Disconnect(1000) })
	return c, token.Error()
}

func (c *rawClient) received() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

func testACL(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	l := start(t, w.config(t, b.Addr()), w.deps())
	until(t, m, "victim is online", online(m, device, true, 1))
	mallory, err := w.raw(t, b.Addr(), w.device(t, "mallory"), tenant+"/mallory")
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []string{
		"#", "vigil/#", "vigil/1/acme/gate-7/up/#", "vigil/1/acme/gate-7/down/command", "vigil/1/+/+/down/command", "vigil/1/acme/mallory/down/command",
	} {
		if token := mallory.Subscribe(filter, 1, nil); !token.WaitTimeout(patient) {
			t.Fatalf("SUBSCRIBE %s is not answered", filter)
		}
	}

	// Reading: what the victim sends and gets must not reach mallory, her own command must.
	w.outbox.add("decision", `{"n":1}`)
	until(t, m, "victim's event", func() bool { return len(eventIDs(m, "decision")) == 1 })
	if err := m.SendRaw(bounded(t), device, []byte("for the victim")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "victim got it", func() bool { return l.Status().Refused[fleet.ReasonMalformed] == 1 })
	if err := m.SendRaw(bounded(t), "mallory", []byte("for mallory")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mallory got hers", func() bool { return len(mallory.received()) > 0 })
	for _, got := range mallory.received() {
		if got != "vigil/1/acme/mallory/down/command for mallory" {
			t.Errorf("mallory received %q", got)
		}
	}

	// Writing: QoS 0, so that no broker has to hang up; the last message is hers and follows the others.
	victim := "vigil/1/acme/gate-7"
	for _, topic := range []string{victim + "/up/event", victim + "/up/state", victim + "/down/command", "vigil/1/other/mallory/up/event", "vigil/1/acme/mallory/down/command"} {
		mallory.Publish(topic, 0, true, `{"online":false,"session":99}`)
	}
	mallory.Publish("vigil/1/acme/mallory/up/state", 1, false, `{"online":true,"session":7}`)
	until(t, m, "mallory's own state", online(m, "mallory", true, 7))
	if s, _ := m.State(device); !s.Online || s.Session != 1 {
		t.Errorf("mallory changed the victim's state to %+v", s)
	}
	if got := l.Status().Refused[fleet.ReasonMalformed]; got != 1 {
		t.Errorf("the victim got %d stray commands, want the manager's one", got)
	}
	if repeats, rejected := m.Counts(); repeats+rejected != 0 {
		t.Errorf("the manager got %d repeats and %d unreadable messages from mallory", repeats, rejected)
	}

	// Taking the victim's session over.
	thief, err := w.raw(t, b.Addr(), w.device(t, "thief"), tenant+"/"+device)
	if err == nil { // Mosquitto replaces the client id with the certificate's name
		thief.Subscribe(victim+"/down/command", 1, nil).WaitTimeout(patient)
	}
	w.outbox.add("decision", `{"n":2}`)
	until(t, m, "victim still delivers", func() bool { return len(eventIDs(m, "decision")) == 2 })
	if s := l.Status(); s.Connects != 1 {
		t.Errorf("the victim was disconnected: %+v", s)
	}
}

func testWeakClients(t *testing.T, w *world, b broker) {
	other := newWorld(t)
	expired, err := w.pki.Device(tenant, device, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id     fleettest.Identity
		change func(*tls.Config)
		ok     bool
	}{
		"good":             {id: w.identity, ok: true},
		"no certificate":   {id: w.identity, change: func(c *tls.Config) { c.Certificates = nil }},
		"other CA":         {id: other.identity},
		"expired":          {id: expired},
		"TLS 1.2 at most":  {id: w.identity, change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		"server's own use": {id: serverIdentity(t, w)},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := clientTLS(t, w, c.id)
			if c.change != nil {
				c.change(cfg)
			}
			err := mqttHandshake(b.Addr(), cfg)
			if (err == nil) != c.ok {
				t.Errorf("handshake ended with %v", err)
			}
		})
	}
}

func serverIdentity(t *testing.T, w *world) fleettest.Identity {
	id, err := w.pki.Server(nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// clientTLS is a configuration without the checks of fleet.TLSConfig on the client's own certificate.
func clientTLS(t *testing.T, w *world, id fleettest.Identity) *tls.Config {
	good, err := w.pki.ClientTLS(w.identity)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(id.CertPEM, pemKey(keyPEM))
	if err != nil {
		t.Fatal(err)
	}
	good.Certificates = []tls.Certificate{cert}
	return good
}

// mqttHandshake returns nil when the broker answers CONNECT with success. In TLS 1.3 a client learns only then that its
// certificate was refused.
func mqttHandshake(addr string, cfg *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patient}, "tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patient)); err != nil {
		return err
	}
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion = "MQTT", 4
	connect.CleanSession, connect.ClientIdentifier, connect.Keepalive = true, tenant+"/"+device, 30
	if err := connect.Write(conn); err != nil {
		return err
	}
	answer, err := packets.ReadPacket(conn)
	if err != nil {
		return err
	}
	if ack, ok := answer.(*packets.ConnackPacket); !ok || ack.ReturnCode != packets.Accepted {
		return fmt.Errorf("refused: %v", answer)
	}
	return nil
}

func testCommands(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	l := start(t, w.config(t, b.Addr()), w.deps())
	until(t, m, "online", online(m, device, true, 1))

	status := command(t, m, fleet.CommandStatus, nil)
	erase := command(t, m, fleet.CommandSubjectDelete, map[string]string{"subject": "0011aabb"})
	for _, c := range []fleet.Command{status, erase} {
		r, err := m.Do(bounded(t), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != fleet.StatusOK || r.Repeated || string(r.Body) != fmt.Sprintf(`{"did":%q}`, c.Name) {
			t.Errorf("%s was answered with %+v", c.Name, r)
		}
	}

	if err := m.Send(bounded(t), erase); err != nil { // the same order, signed again
		t.Fatal(err)
	}
	until(t, m, "recorded answer", func() bool { return len(results(t, m, erase.ID)) == 2 })
	if r := results(t, m, erase.ID)[1]; !r.Repeated || string(r.Body) != `{"did":"subject.delete"}` {
		t.Errorf("the repeat was answered with %+v", r)
	}
	if s := l.Status(); w.ledger.count() != 2 || s.Executed != 2 || s.Repeated != 1 {
		t.Errorf("%d effects, %d executed, %d repeated", w.ledger.count(), s.Executed, s.Repeated)
	}

	// A command that was sent while the device was away is waiting for it.
	l.stop()
	until(t, m, "offline", online(m, device, false, 1))
	later := command(t, m, fleet.CommandStatus, nil)
	if err := m.Send(bounded(t), later); err != nil {
		t.Fatal(err)
	}
	start(t, w.config(t, b.Addr()), w.deps())
	until(t, m, "command was kept by the broker", func() bool { return len(results(t, m, later.ID)) == 1 })
}

func command(t *testing.T, m *fleettest.Manager, name string, args any) fleet.Command {
	t.Helper()
	c, err := m.Command(device, name, args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// results returns all answers to the command id that arrived, in order.
func results(t *testing.T, m *fleettest.Manager, id string) []fleet.Result {
	var out []fleet.Result
	for _, e := range m.Events() {
		if e.Class != fleet.ClassResult {
			continue
		}
		r, err := fleet.ParseResult(e.Body)
		if err != nil {
			t.Error(err)
		} else if r.ID == id {
			out = append(out, r)
		}
	}
	return out
}

func testBadCommands(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	l := start(t, w.config(t, b.Addr()), w.deps())
	until(t, m, "online", online(m, device, true, 1))
	used := command(t, m, fleet.CommandSubjectDelete, map[string]string{"subject": "0011aabb"})
	if _, err := m.Do(bounded(t), used); err != nil {
		t.Fatal(err)
	}
	bad := badCommands(t, w.authority, newWorld(t).authority, used)
	for _, c := range bad {
		if err := m.SendRaw(bounded(t), device, c.token); err != nil {
			t.Fatal(err)
		}
	}
	want := map[fleet.Reason]uint64{}
	for _, c := range bad {
		want[c.reason]++
	}
	eventually(t, "all refused", func() bool {
		got := l.Status().Refused
		for reason, n := range want {
			if got[reason] != n {
				return false
			}
		}
		return true
	})
	if w.ledger.count() != 1 {
		t.Errorf("%d commands took effect, want the good one", w.ledger.count())
	}
	audited := map[fleet.Reason]uint64{}
	for _, r := range w.audits.all() {
		audited[r.Reason]++
		if signed := r.CommandID != ""; signed != afterSignature(r.Reason) && r.Reason != fleet.ReasonMalformed {
			t.Errorf("audit of %s names command %q", r.Reason, r.CommandID)
		}
	}
	for reason, n := range want {
		if audited[reason] != n {
			t.Errorf("%s was audited %d times, want %d", reason, audited[reason], n)
		}
	}
	for _, reason := range fleet.Reasons() {
		if want[reason] == 0 && reason != fleet.ReasonClock { // the clock has a test of its own
			t.Errorf("no bad command is refused as %s", reason)
		}
	}
	// The fleet's own orders are answered, sealed; others are not.
	until(t, m, "refusals are answered", func() bool { return len(results(t, m, used.ID)) == 2 })
	if r := results(t, m, used.ID)[1]; r.Status != fleet.StatusRefused || r.Reason != fleet.ReasonReplayed || r.Body != nil {
		t.Errorf("a used id with other content was answered with %+v", r)
	}
}

func afterSignature(r fleet.Reason) bool {
	switch r {
	case fleet.ReasonTooLarge, fleet.ReasonUnsigned, fleet.ReasonAlgorithm, fleet.ReasonHeader, fleet.ReasonUnknownKey, fleet.ReasonSignature:
		return false
	}
	return true
}

func testFlood(t *testing.T, w *world, b broker) {
	const flood = 400
	m := w.manager(t, b.Addr())
	cfg := w.config(t, b.Addr())
	cfg.QueueDepth = 1024
	l := start(t, cfg, w.deps())
	until(t, m, "online", online(m, device, true, 1))
	foreign := command(t, m, fleet.CommandStatus, nil)
	foreign.Device = "gate-8"
	token, err := w.authority.Sign(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for i := range flood {
		payload := []byte("noise")
		if i%2 == 1 {
			payload = []byte(token)
		}
		if err := m.SendRaw(bounded(t), device, payload); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Do(bounded(t), command(t, m, fleet.CommandStatus, nil)); err != nil {
		t.Fatalf("a good command behind the flood: %v", err)
	}
	s := l.Status()
	if s.Refused[fleet.ReasonMalformed] != flood/2 || s.Refused[fleet.ReasonForeign] != flood/2 {
		t.Errorf("refused %v, want all %d", s.Refused, flood)
	}
	calls := len(w.audits.all())
	if calls > 20 || uint64(calls)+s.AuditSuppressed != flood {
		t.Errorf("%d audit calls and %d suppressed for %d bad commands", calls, s.AuditSuppressed, flood)
	}
	if left, deleted := w.outbox.ids(); len(left)+len(deleted) != 1 {
		t.Errorf("the flood made %d answers", len(left)+len(deleted)-1)
	}
}

func testFullQueue(t *testing.T, w *world, b broker) {
	const total = 12
	m := w.manager(t, b.Addr())
	cfg := w.config(t, b.Addr())
	cfg.QueueDepth = 2
	w.ledger.gate = make(chan struct{})
	l := start(t, cfg, w.deps())
	until(t, m, "online", online(m, device, true, 1))
	var sent []fleet.Command
	for range total {
		c := command(t, m, fleet.CommandStatus, nil)
		if err := m.Send(bounded(t), c); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, c)
	}
	eventually(t, "queue is full", func() bool { return l.Status().QueueFull > 0 })
	if !l.Status().Connected {
		t.Error("a full queue ended the connection")
	}
	close(w.ledger.gate)
	if _, ok := b.(*fleettest.Broker); ok {
		return // see Broker: it does not deliver again reliably
	}
	until(t, m, "all are answered", func() bool {
		for _, c := range sent {
			if len(results(t, m, c.ID)) == 0 {
				return false
			}
		}
		return true
	})
	if w.ledger.count() != total {
		t.Errorf("%d effects of %d commands", w.ledger.count(), total)
	}
}

func testPoison(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	l := start(t, w.config(t, b.Addr()), w.deps())
	until(t, m, "online", online(m, device, true, 1))
	if err := m.SendRaw(bounded(t), device, make([]byte, fleet.MaxPacketBytes+1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "link came back", func() bool { s := l.Status(); return s.Connected && s.Connects >= 2 })
	if s := l.Status(); !strings.Contains(s.LastError, "too large") {
		t.Errorf("last error is %q", s.LastError)
	}
	if _, err := m.Do(bounded(t), command(t, m, fleet.CommandStatus, nil)); err != nil {
		t.Fatalf("a good command afterwards: %v", err)
	}
}

func testTrouble(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	w.ledger.failing, w.outbox.failing, w.replies = 1, 3, 1
	cfg := w.config(t, b.Addr())
	cfg.AckTimeout, cfg.MaxRecordBytes = 800*time.Millisecond, 1000
	l := start(t, cfg, w.deps())
	until(t, m, "online", online(m, device, true, 1))

	// Deletes fail three times; nothing is lost, nothing is sent without end.
	w.outbox.add("decision", `{"n":1}`)
	eventually(t, "deleted in the end", func() bool { left, _ := w.outbox.ids(); return len(left) == 0 })
	if s := l.Status(); s.OutboxErrors != 3 || s.Published != 1 {
		t.Errorf("%d outbox errors, %d published", s.OutboxErrors, s.Published)
	}

	// The first Execute fails and its answer cannot be stored: the broker brings the command again.
	c := command(t, m, fleet.CommandStatus, nil)
	r, err := m.Do(bounded(t), c)
	if err != nil || r.Status != fleet.StatusOK {
		t.Errorf("after trouble the command was answered with %+v, %v", r, err)
	}

	// What cannot be sent becomes a gap and does not block what is behind it.
	w.outbox.mu.Lock()
	w.outbox.damaged = map[uint64]bool{w.outbox.next + 2: true}
	w.outbox.mu.Unlock()
	big := w.outbox.add("decision", strings.Repeat("x", 1001))
	broken := w.outbox.add("decision", `{}`)
	odd := w.outbox.add("a class", `{}`)
	w.outbox.add("decision", `{"n":5}`)
	eventually(t, "outbox is empty", func() bool { left, _ := w.outbox.ids(); return len(left) == 0 })
	until(t, m, "gaps arrived", func() bool { return len(eventIDs(m, "decision")) == 2 && len(eventIDs(m, fleet.ClassGap)) == 3 })
	want := map[uint64]string{big: fleet.GapTooLarge, broken: fleet.GapDamaged, odd: fleet.GapClass}
	for _, e := range m.Events() {
		var gap fleet.Gap
		if e.Class == fleet.ClassGap && (json.Unmarshal(e.Body, &gap) != nil || gap.Reason != want[e.ID] || gap.From != e.ID || gap.Count != 1) {
			t.Errorf("gap %d says %s", e.ID, e.Body)
		}
	}

	// The outbox drops a record in flight and puts a marker under its id: the record's PUBACK must not delete the marker.
	w.outbox.mu.Lock()
	dropped := w.outbox.next + 1
	w.outbox.swap = map[uint64]fleet.Record{dropped: {ID: dropped, Class: fleet.ClassGap, Payload: []byte(`{"count":1}`)}}
	w.outbox.mu.Unlock()
	w.outbox.add("telemetry", `{}`)
	until(t, m, "record and its marker", func() bool {
		return slices.Contains(eventIDs(m, "telemetry"), dropped) && slices.Contains(eventIDs(m, fleet.ClassGap), dropped)
	})
	eventually(t, "outbox is empty at last", func() bool { left, _ := w.outbox.ids(); return len(left) == 0 })
	if repeats, rejected := m.Counts(); repeats+rejected != 0 {
		t.Errorf("%d repeats, %d rejected", repeats, rejected)
	}
}

func testCiphertext(t *testing.T, w *world, b broker) {
	m := w.manager(t, b.Addr())
	start(t, w.config(t, b.Addr()), w.deps())
	secret := "Ada Lovelace"
	w.outbox.add("decision", `{"name":"`+secret+`"}`)
	until(t, m, "event", func() bool { return len(m.Events()) == 1 })
	if got := m.Events()[0]; !strings.Contains(string(got.Body), secret) || got.Device != device || got.Origin != "store-1" {
		t.Errorf("event is %+v", got)
	}
	mochi, ok := b.(*fleettest.Broker)
	if !ok {
		return // Mosquitto does not show its traffic
	}
	for _, c := range mochi.Captured() {
		if bytes.Contains(c.Payload, []byte(secret)) || bytes.Contains(c.Payload, []byte("Ada")) {
			t.Errorf("%s carries the name in clear", c.Topic)
		}
		var e fleet.Envelope
		if json.Unmarshal(c.Payload, &e) == nil && bytes.Contains(e.Body, []byte("Ada")) {
			t.Errorf("the body on %s is in clear", c.Topic)
		}
	}
}
