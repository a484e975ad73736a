package store_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vigil/secure"
	"vigil/secure/mem"
	"vigil/store"
	"vigil/store/storetest"
)

// childEnv names the part that a copy of the test binary plays.
const childEnv = "VIGIL_STORE_TEST_CHILD"

// childConfig is what a child needs to open the parent's store; its standard
// input.
type childConfig struct {
	Path string
	Root string // hex
	KEKs []secure.WrappedKEK
	Seed uint64
}

// newChildConfig makes keys and a place for a store that children open.
func newChildConfig(t *testing.T, dir string) childConfig {
	t.Helper()
	root := make([]byte, secure.RootBytes)
	rng := newRand(t)
	for i := range root {
		root[i] = byte(rng.Uint32())
	}
	cfg := childConfig{Path: filepath.Join(dir, "v.db"), Root: hex.EncodeToString(root)}
	buf, err := mem.FromBytes(root)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Close()
	if cfg.KEKs, err = secure.GenerateKEKs(buf, storetest.Device, secure.Purposes()...); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func (c childConfig) keyring() (*secure.Keyring, error) {
	root, err := hex.DecodeString(c.Root)
	if err != nil {
		return nil, err
	}
	return storetest.NewKeyring(root, c.KEKs)
}

// startChild runs this binary as the given child.
func startChild(t *testing.T, part string, cfg childConfig) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(input)), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// runChild is the main function of a child.
func runChild(part string) int {
	var cfg childConfig
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		return childFailed(err)
	}
	keyring, err := cfg.keyring()
	if err != nil {
		return childFailed(err)
	}
	defer keyring.Close()
	parts := map[string]func(*store.Store, *rand.Rand) error{"busy": busyChild, "full": fullChild}
	s, err := store.Open(store.Options{Path: cfg.Path, Keyring: keyring})
	if err != nil {
		return childFailed(err)
	}
	err = parts[part](s, rand.New(rand.NewPCG(cfg.Seed, 7)))
	if err := errors.Join(err, s.Close()); err != nil {
		return childFailed(err)
	}
	return 0
}

func childFailed(err error) int {
	fmt.Fprintln(os.Stderr, "child:", err)
	return 3
}

// busyChild enrols, deletes and queues until it is killed, and prints each thing
// after it was acknowledged.
func busyChild(s *store.Store, rng *rand.Rand) error {
	var mine []string
	for i := 0; ; i++ {
		id := store.NewSubjectID()
		seq, out, err := busyStep(s, rng, id)
		if err != nil {
			return err
		}
		fmt.Printf("ack %s %d %d\n", id, seq, out)
		mine = append(mine, id)
		if i%4 == 3 {
			victim := mine[0]
			mine = mine[1:]
			fmt.Printf("try %s\n", victim)
			if err := s.Update(context.Background(), func(tx *store.Tx) error { return tx.DeleteSubject(victim) }); err != nil {
				return err
			}
			fmt.Printf("del %s\n", victim)
		}
		if i%5 == 4 {
			fmt.Printf("puback %d\n", out)
			if err := s.OutboxDelete(out); err != nil {
				return err
			}
		}
	}
}

func busyStep(s *store.Store, rng *rand.Rand, id string) (seq, out uint64, err error) {
	err = s.Update(context.Background(), func(tx *store.Tx) (err error) {
		templates := []store.Template{randomTemplate(rng, model, 512), randomTemplate(rng, model, 512)}
		if err := tx.PutSubject(store.Subject{ID: id, Name: "child"}, templates); err != nil {
			return err
		}
		if seq, err = tx.AppendAudit(store.AuditEvent{Type: "enrol", Subject: id}); err != nil {
			return err
		}
		out, err = tx.AppendOutbox("decision", []byte(id))
		return err
	})
	return seq, out, err
}

// acknowledged is what children have been told is durable.
type acknowledged struct {
	subjects map[string]bool // true: there; false: may be there or not
	outbox   map[uint64]string
	audit    map[uint64]string
}

func (a *acknowledged) read(line string) {
	var id string
	var seq, out uint64
	if n, _ := fmt.Sscanf(line, "ack %s %d %d", &id, &seq, &out); n == 3 {
		a.subjects[id], a.audit[seq], a.outbox[out] = true, id, id
	} else if n, _ := fmt.Sscanf(line, "try %s", &id); n == 1 {
		a.subjects[id] = false
	} else if n, _ := fmt.Sscanf(line, "puback %d", &out); n == 1 {
		delete(a.outbox, out)
	}
}

// verify compares the store with what was acknowledged.
func (a *acknowledged) verify(t *testing.T, s *store.Store) {
	t.Helper()
	view(t, s, func(tx *store.Tx) error {
		for id, there := range a.subjects {
			if _, err := tx.Subject(id); there && err != nil {
				t.Errorf("acknowledged subject is lost: %v", err)
			}
		}
		return nil
	})
	for seq, id := range a.audit {
		view(t, s, func(tx *store.Tx) error {
			events, err := tx.Audit(seq, 1)
			if err != nil || len(events) != 1 || events[0].Subject != id {
				t.Errorf("acknowledged event %d is lost: %v, %v", seq, events, err)
			}
			return nil
		})
	}
	for out, id := range a.outbox {
		recs, err := s.OutboxNext(out-1, 1)
		if err != nil || len(recs) != 1 || recs[0].ID != out || string(recs[0].Payload) != id {
			t.Errorf("acknowledged outbox record %d is lost: %v, %v", out, recs, err)
		}
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	cfg := newChildConfig(t, t.TempDir())
	rng := newRand(t)
	acked := &acknowledged{make(map[string]bool), make(map[uint64]string), make(map[uint64]string)}
	kills := 30
	if testing.Short() {
		kills = 5
	}
	for range kills {
		cfg.Seed = rng.Uint64()
		cmd, lines := startChild(t, "busy", cfg)
		kill := time.AfterFunc(time.Duration(30+rng.IntN(250))*time.Millisecond, func() { cmd.Process.Kill() })
		for lines.Scan() {
			acked.read(lines.Text())
		}
		err := cmd.Wait()
		kill.Stop()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child was not killed: %v", err)
		}
		keyring, err := cfg.keyring()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(cfg.Path); err == nil {
			storetest.Check(t, cfg.Path, keyring)
		}
		s, err := store.Open(store.Options{Path: cfg.Path, Keyring: keyring})
		if err != nil {
			t.Fatalf("cannot open after the kill: %v", err)
		}
		acked.verify(t, s)
		if err := errors.Join(s.Close(), keyring.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %d events acknowledged", kills, len(acked.audit))
	if len(acked.audit) < kills {
		t.Error("children did too little for this test to mean anything")
	}
}

// fullChild works under a file size limit until the store is full, then raises
// the limit and goes on.
func fullChild(s *store.Store, rng *rand.Rand) error {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 300 << 10, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	return fillAndGoOn(s, rng, func(line string) { fmt.Println(line) }, func() error {
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	})
}

// fillAndGoOn enrols until the disk is full, several times over, then makes
// room and enrols on. What was acknowledged goes to report.
func fillAndGoOn(s *store.Store, rng *rand.Rand, report func(line string), makeRoom func() error) error {
	full := 0
	for i := 0; full < 3; i++ {
		id := store.NewSubjectID()
		seq, out, err := busyStep(s, rng, id)
		switch {
		case errors.Is(err, store.ErrFull):
			full++
			if _, ok := s.Gallery(model).Verify(id, probeOf(randomTemplate(rng, model, 512))); ok {
				return errors.New("a subject that was refused is in the gallery")
			}
		case err != nil:
			return err
		case i > 5000:
			return errors.New("the disk never got full")
		default:
			report(fmt.Sprintf("ack %s %d %d", id, seq, out))
		}
	}
	if err := makeRoom(); err != nil {
		return err
	}
	for range 5 {
		id := store.NewSubjectID()
		seq, out, err := busyStep(s, rng, id)
		if err != nil {
			return fmt.Errorf("after room was made: %w", err)
		}
		report(fmt.Sprintf("ack %s %d %d", id, seq, out))
	}
	return nil
}

func TestFullDiskByLimit(t *testing.T) {
	cfg := newChildConfig(t, t.TempDir())
	acked := &acknowledged{make(map[string]bool), make(map[uint64]string), make(map[uint64]string)}
	cmd, lines := startChild(t, "full", cfg)
	for lines.Scan() {
		acked.read(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child failed: %v", err)
	}
	keyring, err := cfg.keyring()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyring.Close() })
	storetest.Check(t, cfg.Path, keyring)
	acked.verify(t, storetest.Open(t, store.Options{Path: cfg.Path, Keyring: keyring}))
	if len(acked.audit) < 10 {
		t.Errorf("only %d enrolments fitted", len(acked.audit))
	}
}

func TestFullDiskOnTmpfs(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("mounting a tmpfs needs root and the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	acked := &acknowledged{make(map[string]bool), make(map[uint64]string), make(map[uint64]string)}
	s := storetest.Open(t, store.Options{Path: filepath.Join(dir, "v.db")})
	err := fillAndGoOn(s, newRand(t), acked.read, func() error {
		return syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m")
	})
	if err != nil {
		t.Fatal(err)
	}
	acked.verify(t, s)
}
