package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/fleet"
	"vigil/fleet/fleettest"
	"vigil/infer/infertest"
	"vigil/store"
)

// testFleet is a broker with its management side for one device.
type testFleet struct {
	manager   *fleettest.Manager
	authority *fleet.Authority
}

// tenantOfTests is the tenant in the certificate requests of daemontest.
const tenantOfTests = "test"

// broker is what the two kinds of brokers share.
type broker interface {
	Addr() string
	Kill() error
	Restart() error
	Close() error
}

// joinFleet makes the device a member of a throw-away fleet at the broker and starts a management client.
func joinFleet(t *testing.T, d *daemontest.Device, pki *fleettest.PKI, b broker) *testFleet {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cert, err := pki.SignRequest(d.CSR)
	fatal(err)
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	fatal(err)
	der, err := x509.MarshalPKIXPublicKey(pub)
	fatal(err)
	authority, err := fleet.NewAuthority(priv)
	fatal(err)
	t.Cleanup(authority.Close)
	key, err := fleet.ManagementKEM().GenerateKey()
	fatal(err)
	d.Config.Fleet = config.Fleet{
		Broker: b.Addr(), ServerName: fleettest.ServerName, Tenant: tenantOfTests,
		CA: write("ca.pem", pki.CAPEM()), Certificate: write("device.pem", cert),
		ManagementKey: write("management.pub", []byte(base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()))),
		CommandKeys:   []string{write("authority.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
	}
	id, err := pki.Management(tenantOfTests)
	fatal(err)
	tls, err := pki.ClientTLS(id)
	fatal(err)
	m, err := fleettest.NewManager(fleettest.ManagerConfig{Addr: b.Addr(), TLS: tls, Tenant: tenantOfTests, Authority: authority, Key: key})
	fatal(err)
	t.Cleanup(m.Close)
	fatal(m.Ready(t.Context()))
	return &testFleet{manager: m, authority: authority}
}

// decisions returns the ids of the decisions that reached the management side.
func (f *testFleet) decisions() map[string]bool {
	ids := map[string]bool{}
	for _, e := range f.manager.Events() {
		var dec core.Decision
		if e.Class == "decision" && json.Unmarshal(e.Body, &dec) == nil {
			ids[dec.ID] = true
		}
	}
	return ids
}

// writeConfig writes the device's configuration for a process of its own.
func writeConfig(t *testing.T, d *daemontest.Device) string {
	t.Helper()
	text, err := toml.Marshal(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vigild.toml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// buildAppliance builds the binary that ships.
func buildAppliance(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "vigild")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "appliance", "-o", bin, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	return bin
}

// acks is what the device acknowledged to somebody.
type acks struct {
	mu        sync.Mutex
	subjects  []string
	decisions []string
}

func (a *acks) subject(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subjects = append(a.subjects, id)
}

func (a *acks) decision(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decisions = append(a.decisions, id)
}

// readLog takes the decisions that the daemon announced in its log, whole lines only.
func (a *acks) readLog(r io.Reader) {
	for s := bufio.NewReader(r); ; {
		line, err := s.ReadBytes('\n')
		if err != nil {
			return
		}
		var entry struct{ Msg, ID string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "decision" {
			a.decision(entry.ID)
		}
	}
}

// people hands out one picture of a different person at each call.
type people struct {
	mu    sync.Mutex
	dirs  []string
	index int
}

func (p *people) next() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.index < len(p.dirs) {
		files, _ := filepath.Glob(filepath.Join(p.dirs[p.index], "*.jpg"))
		p.index++
		if len(files) > 0 {
			if data, err := os.ReadFile(files[0]); err == nil {
				return data
			}
		}
	}
	return nil
}

// TestKilledAnywhereLosesNothingAcknowledged kills the running daemon at random moments, start-up included, while people
// are enrolled, identified and seen by a camera. Afterwards everybody who was acknowledged is there, every announced
// decision stands in the audit log, and every decision of the log has reached the broker.
// VIGIL_KILLS sets how often; VIGIL_SEED repeats a run.
func TestKilledAnywhereLosesNothingAcknowledged(t *testing.T) {
	kills := intFromEnv(t, "VIGIL_KILLS", 50)
	seed := intFromEnv(t, "VIGIL_SEED", int(time.Now().UnixNano()&0xffffff))
	t.Logf("%d kills, VIGIL_SEED=%d", kills, seed)
	random := mrand.New(mrand.NewPCG(uint64(seed), 0))
	d := daemontest.NewWithModel(t)
	pki, err := fleettest.NewPKI(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := fleettest.NewBroker(pki, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f := joinFleet(t, d, pki, b)
	p := &d.Config.Policy
	p.EnrollSamples, p.EnrollQuality, p.ConfirmFrames, p.UnknownFrames = 1, 0, 1, 1
	p.EventHold = config.Duration(10 * time.Millisecond) // every frame is a visit of its own
	d.Config.Log = config.Log{Level: "info", Format: "json"}
	d.Config.Sensors = []config.Sensor{{Name: "door", Driver: "replay", Path: infertest.Data(t, "clips", "P1", "help.15fps.mjpeg"), Loop: true}}
	conf, bin := writeConfig(t, d), buildAppliance(t)
	dirs, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw"), "*"))
	if err != nil {
		t.Fatal(err)
	}
	all, crowd := &acks{}, &people{dirs: dirs}
	for range kills {
		delay := 100*time.Millisecond + time.Duration(random.Int64N(int64(1500*time.Millisecond)))
		runAndKill(t, bin, conf, d, all, crowd, delay)
	}
	settle(t, bin, conf, d, f, all)
	t.Logf("%d kills: %d enrolments and %d decisions were acknowledged, none is missing", kills, len(all.subjects), len(all.decisions))
}

func intFromEnv(t *testing.T, name string, fallback int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// runAndKill starts the daemon, uses it from two clients, and kills it after the delay.
func runAndKill(t *testing.T, bin, conf string, d *daemontest.Device, all *acks, crowd *people, delay time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.Command(bin, "run", "--config", conf)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { all.readLog(log) })
	wg.Go(func() { enrollUntil(ctx, d, all, crowd) })
	wg.Go(func() { identifyUntil(ctx, d, all, crowd) })
	time.Sleep(delay)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the daemon was not killed but ended: %v", err)
	}
}

func enrollUntil(ctx context.Context, d *daemontest.Device, all *acks, crowd *people) {
	c := api.Dial(filepath.Join(d.Config.StateDir, "vigild.sock"))
	defer c.Close()
	for ctx.Err() == nil {
		if _, err := c.Status(ctx); err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		pic := crowd.next()
		if pic == nil {
			return
		}
		if e, err := c.Enroll(ctx, api.EnrollRequest{Name: "Somebody", Pictures: [][]byte{pic}}); err == nil {
			all.subject(e.Subject)
		}
	}
}

func identifyUntil(ctx context.Context, d *daemontest.Device, all *acks, crowd *people) {
	c := api.Dial(filepath.Join(d.Config.StateDir, "vigild.sock"))
	defer c.Close()
	pic := crowd.next()
	for ctx.Err() == nil && pic != nil {
		list, err := c.Identify(ctx, pic)
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		for _, dec := range list {
			all.decision(dec.ID)
		}
	}
}

// settle starts the daemon a last time, lets it deliver, stops it in order, and looks for everything acknowledged.
func settle(t *testing.T, bin, conf string, d *daemontest.Device, f *testFleet, all *acks) {
	t.Helper()
	// Without the camera, so that the outbox can run empty.
	data, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	quiet := d.Config
	quiet.Sensors = nil
	text, err := toml.Marshal(quiet)
	if err != nil || bytes.Equal(text, data) {
		t.Fatal("cannot write the last configuration", err)
	}
	if err := os.WriteFile(conf, text, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "run", "--config", conf)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := api.Dial(filepath.Join(d.Config.StateDir, "vigild.sock"))
	defer c.Close()
	enrolled := map[string]bool{}
	for {
		s, err := c.Status(ctx)
		if err == nil && s.Outbox.Records == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("the outbox does not run empty: %+v %v\n%s", s.Outbox, err, stderr.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	list, err := c.Subjects(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		enrolled[s.ID] = true
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the last daemon did not close in order: %v\n%s", err, stderr.String())
	}
	for _, id := range all.subjects {
		if !enrolled[id] {
			t.Errorf("subject %s was acknowledged and is gone", id)
		}
	}
	audited := auditedDecisions(t, d)
	for _, id := range all.decisions {
		if !audited[id] {
			t.Errorf("decision %s was announced and is not in the audit log", id)
		}
	}
	err = f.manager.Await(ctx, func() bool { return len(f.decisions()) >= len(audited) })
	at := f.decisions()
	for id := range audited {
		if !at[id] {
			t.Errorf("decision %s never reached the management side (%v)", id, err)
		}
	}
	if len(all.subjects) == 0 || len(all.decisions) == 0 {
		t.Error("nothing was acknowledged at all: the test is hollow")
	}
}

// auditedDecisions reads the audit log of a device that is not running.
func auditedDecisions(t *testing.T, d *daemontest.Device) map[string]bool {
	t.Helper()
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	s, err := store.Open(store.Options{Path: core.StorePath(d.Config.StateDir), Keyring: dev.Keyring(), Logger: daemontest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := map[string]bool{}
	for next := uint64(1); ; {
		var page []store.AuditEntry
		err := s.View(t.Context(), func(tx *store.Tx) error {
			page, err = tx.Audit(next, 1000)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return ids
		}
		for _, e := range page {
			if id, ok := e.Detail["id"].(string); ok && e.Type == "decision" {
				ids[strings.ToLower(id)] = true
			}
		}
		next = page[len(page)-1].Seq + 1
	}
}
