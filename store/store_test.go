package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vigil/kernels"
	"vigil/secure/mem"
	"vigil/store"
	"vigil/store/storetest"
)

const model = "face-test-1"

// TestMain runs the children of the crash and full-disk tests, and fails when a
// test left locked memory behind.
func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		os.Exit(runChild(child))
	}
	files, goroutines := openFiles(), runtime.NumGoroutine()
	code := m.Run()
	if buffers, size := mem.Live(); buffers != 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "tests left %d locked buffers of %d bytes open\n", buffers, size)
		code = 1
	}
	// Goroutines that have nothing left to do, such as the one that waited for a child, may still be ending.
	for limit := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(limit); {
		time.Sleep(10 * time.Millisecond)
	}
	if f, g := openFiles(), runtime.NumGoroutine(); (f > files || g > goroutines) && code == 0 {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "tests left %d files open and %d goroutines running\n%s\n", f-files, g-goroutines, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// openFiles counts the open files of this process, but for the poller that the
// runtime opens with the first pipe and keeps.
func openFiles() (n int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") {
			n++
		}
	}
	return n
}

// TestCheckDuringUpdates looks at moving pages and must see none of it.
func TestCheckDuringUpdates(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var ids []string
		for i := range 120 {
			ids = append(ids, enrol(t, s, "n", randomTemplate(rng, model, 256)))
			queue(t, s, "event", fmt.Sprint(i))
			if i%3 == 2 {
				deleteSubject(t, s, ids[0])
				ids = ids[1:]
			}
		}
	}()
	checks := 0
	for running := true; running; checks++ {
		select {
		case <-done:
			running = false
		default:
		}
		report, err := s.Check()
		if err != nil || !report.OK() {
			t.Errorf("check %d: %v, %v", checks, report.Problems, err)
			break
		}
	}
	<-done
	t.Logf("%d checks", checks)
}

// randomTemplate makes a template of a random direction.
func randomTemplate(rng *rand.Rand, modelID string, dim int) store.Template {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	t := store.Template{ModelID: modelID, Values: make([]int8, dim), Quality: 0.5}
	t.Scale = kernels.QuantizeUnit(t.Values, v)
	return t
}

func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func update(t testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// enrol puts a new subject and returns its id.
func enrol(t testing.TB, s *store.Store, name string, templates ...store.Template) string {
	t.Helper()
	id := store.NewSubjectID()
	update(t, s, func(tx *store.Tx) error {
		return tx.PutSubject(store.Subject{ID: id, Name: name, Created: time.Unix(1700000000, 0), Samples: len(templates)}, templates)
	})
	return id
}

func deleteSubject(t testing.TB, s *store.Store, id string) {
	t.Helper()
	update(t, s, func(tx *store.Tx) error { return tx.DeleteSubject(id) })
}

func probeOf(t store.Template) store.Probe { return store.Probe{Values: t.Values, Scale: t.Scale} }

func TestSubjectsSurviveReopening(t *testing.T) {
	rng := newRand(t)
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	a, b := randomTemplate(rng, model, 512), randomTemplate(rng, "finger-test-1", 256)
	id := enrol(t, s, "Ada Example", a, b)
	other := enrol(t, s, "Bob Example", randomTemplate(rng, model, 512))
	deleteSubject(t, s, other)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.Open(t, opts)
	view(t, s, func(tx *store.Tx) error {
		sub, err := tx.Subject(id)
		want := store.Subject{ID: id, Name: "Ada Example", Created: time.Unix(1700000000, 0).UTC(), Samples: 2, Templates: 2}
		if err != nil || sub != want {
			t.Errorf("got %+v, %v; want %+v", sub, err, want)
		}
		if _, err := tx.Subject(other); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleted subject: %v", err)
		}
		list, err := tx.Subjects("", 10)
		if err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("list is %v, %v", list, err)
		}
		return nil
	})
	for _, tm := range []store.Template{a, b} {
		score, ok := s.Gallery(tm.ModelID).Verify(id, probeOf(tm))
		if !ok || score < 0.9999 || score > 1.0001 {
			t.Errorf("model %s: template scores %v, %v against itself", tm.ModelID, score, ok)
		}
	}
}

func TestSubjectsArePaged(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	want := make(map[string]bool)
	for range 7 {
		want[enrol(t, s, "n", randomTemplate(rng, model, 128))] = true
	}
	after := ""
	for {
		var page []store.Subject
		view(t, s, func(tx *store.Tx) (err error) { page, err = tx.Subjects(after, 3); return err })
		if len(page) == 0 {
			break
		}
		for _, sub := range page {
			if sub.ID <= after || !want[sub.ID] {
				t.Errorf("unexpected subject %s after %s", sub.ID, after)
			}
			delete(want, sub.ID)
			after = sub.ID
		}
	}
	if len(want) != 0 {
		t.Errorf("%d subjects were not listed", len(want))
	}
}

func TestRefusedArguments(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	good := randomTemplate(rng, model, 128)
	id := enrol(t, s, "there", good)
	sub := func(id string) store.Subject { return store.Subject{ID: id, Name: "x"} }
	with := func(f func(*store.Template)) []store.Template {
		tm := good
		f(&tm)
		return []store.Template{tm}
	}
	fresh := store.NewSubjectID()
	cases := []struct {
		name string
		want error
		do   func(tx *store.Tx) error
	}{
		{"subject twice", store.ErrExists, func(tx *store.Tx) error { return tx.PutSubject(sub(id), with(func(*store.Template) {})) }},
		{"upper-case id", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(sub(strings.ToUpper("ab"+fresh[2:])), []store.Template{good})
		}},
		{"short id", store.ErrInvalid, func(tx *store.Tx) error { return tx.PutSubject(sub("ab"), []store.Template{good}) }},
		{"long name", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(store.Subject{ID: fresh, Name: strings.Repeat("x", 257)}, []store.Template{good})
		}},
		{"name not text", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(store.Subject{ID: fresh, Name: "\xff"}, []store.Template{good})
		}},
		{"no template", store.ErrInvalid, func(tx *store.Tx) error { return tx.PutSubject(sub(fresh), nil) }},
		{"no scale", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(sub(fresh), with(func(tm *store.Template) { tm.Scale = 0 }))
		}},
		{"no model", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(sub(fresh), with(func(tm *store.Template) { tm.ModelID = "" }))
		}},
		{"too short", store.ErrInvalid, func(tx *store.Tx) error {
			return tx.PutSubject(sub(fresh), with(func(tm *store.Template) { tm.Values = tm.Values[:8] }))
		}},
		{"other length", store.ErrModel, func(tx *store.Tx) error {
			return tx.PutSubject(sub(fresh), with(func(tm *store.Template) { tm.Values = tm.Values[:64] }))
		}},
		{"two lengths at once", store.ErrModel, func(tx *store.Tx) error {
			return tx.PutSubject(sub(fresh), []store.Template{randomTemplate(rng, "new", 128), randomTemplate(rng, "new", 256)})
		}},
		{"delete nobody", store.ErrNotFound, func(tx *store.Tx) error { return tx.DeleteSubject(fresh) }},
		{"no event type", store.ErrInvalid, func(tx *store.Tx) error { _, err := tx.AppendAudit(store.AuditEvent{}); return err }},
		{"event not JSON", store.ErrInvalid, func(tx *store.Tx) error {
			_, err := tx.AppendAudit(store.AuditEvent{Type: "x", Detail: map[string]any{"f": func() {}}})
			return err
		}},
		{"unknown class", store.ErrInvalid, func(tx *store.Tx) error { _, err := tx.AppendOutbox("gossip", nil); return err }},
		{"huge payload", store.ErrInvalid, func(tx *store.Tx) error {
			_, err := tx.AppendOutbox("event", make([]byte, 1<<20))
			return err
		}},
		{"setting name", store.ErrInvalid, func(tx *store.Tx) error { return tx.Put("No Good", nil) }},
		{"no setting", store.ErrNotFound, func(tx *store.Tx) error { _, err := tx.Get("none"); return err }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := s.Update(context.Background(), c.do)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if err := s.Gallery(model).Accepts("face-other", 128); !errors.Is(err, store.ErrModel) || !strings.Contains(err.Error(), "face-other") || !strings.Contains(err.Error(), model) {
		t.Errorf("other model: %v", err)
	}
	if subjects, templates := s.Gallery(model).Len(); subjects != 1 || templates != 1 {
		t.Errorf("gallery holds %d subjects, %d templates", subjects, templates)
	}
}

func TestFailedUpdateLeavesNoTrace(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	kept := randomTemplate(rng, model, 128)
	id := enrol(t, s, "kept", kept)
	boom := errors.New("boom")
	work := func(tx *store.Tx) {
		if err := tx.PutSubject(store.Subject{ID: store.NewSubjectID(), Name: "gone"}, []store.Template{randomTemplate(rng, model, 128)}); err != nil {
			t.Error(err)
		}
		if err := tx.DeleteSubject(id); err != nil {
			t.Error(err)
		}
		if _, err := tx.AppendOutbox("event", []byte("x")); err != nil {
			t.Error(err)
		}
	}
	before := s.Generation()
	if err := s.Update(context.Background(), func(tx *store.Tx) error { work(tx); return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if r := recover(); r != "panic of the caller" {
				t.Errorf("recovered %v", r)
			}
		}()
		s.Update(context.Background(), func(tx *store.Tx) error { work(tx); panic("panic of the caller") })
	}()
	g := s.Gallery(model)
	if _, ok := g.Verify(id, probeOf(kept)); !ok {
		t.Error("a failed update removed a subject from the gallery")
	}
	if subjects, templates := g.Len(); subjects != 1 || templates != 1 {
		t.Errorf("gallery holds %d subjects, %d templates", subjects, templates)
	}
	if g.DirtyRows() != 0 {
		t.Error("templates of a failed update stayed in memory")
	}
	if s.Generation() != before || s.OutboxStats().Records != 0 {
		t.Error("totals changed")
	}
	select {
	case <-s.OutboxChanged():
		t.Error("a failed update woke the outbox's reader")
	default:
	}
}

func TestDeleteAndPutInOneTransaction(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	before, after := randomTemplate(rng, model, 128), randomTemplate(rng, model, 128)
	id := enrol(t, s, "first", before)
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.DeleteSubject(id), tx.PutSubject(store.Subject{ID: id, Name: "second"}, []store.Template{after}))
	})
	score, ok := s.Gallery(model).Verify(id, probeOf(after))
	if !ok || score < 0.999 {
		t.Errorf("new template scores %v, %v", score, ok)
	}
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.DeleteSubject(id), tx.PutSubject(store.Subject{ID: id, Name: "third"}, []store.Template{before}), tx.DeleteSubject(id))
	})
	if _, ok := s.Gallery(model).Verify(id, probeOf(after)); ok {
		t.Error("deleted subject is still found")
	}
}

func TestTransactionsOutOfPlace(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	var kept *store.Tx
	view(t, s, func(tx *store.Tx) error {
		kept = tx
		if _, err := tx.AppendAudit(store.AuditEvent{Type: "x"}); !errors.Is(err, store.ErrReadOnly) {
			t.Errorf("change inside View: %v", err)
		}
		return nil
	})
	if _, err := kept.Subjects("", 1); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after View: %v", err)
	}
	update(t, s, func(tx *store.Tx) error { kept = tx; return nil })
	if err := kept.Put("a", nil); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after Update: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Update(ctx, func(*store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := s.View(context.Background(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestOneProcessOnly(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t), LockWait: 50 * time.Millisecond}
	s := storetest.Open(t, opts)
	_, err := store.Open(opts)
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second Open: %v", err)
	}
	if _, err := store.Check(opts.Path, opts.Keyring); !errors.Is(err, store.ErrLocked) {
		t.Errorf("Check of an open store: %v", err)
	}
	if report, err := s.Check(); err != nil || !report.OK() {
		t.Errorf("Check by the owner: %v, %v", report, err)
	}
}

func TestOpenRefusesForeignAndNewerStores(t *testing.T) {
	dir := t.TempDir()
	opts := store.Options{Path: filepath.Join(dir, "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	enrol(t, s, "x", randomTemplate(newRand(t), model, 128))
	s.Close()

	foreign := store.Options{Path: opts.Path, Keyring: storetest.Keyring(t)}
	if _, err := store.Open(foreign); !errors.Is(err, store.ErrKeyring) {
		t.Errorf("other key ring: %v", err)
	}
	if _, err := store.Check(foreign.Path, foreign.Keyring); !errors.Is(err, store.ErrKeyring) {
		t.Errorf("check with other key ring: %v", err)
	}

	newer := store.Options{Path: filepath.Join(dir, "newer.db"), Keyring: opts.Keyring}
	copyFile(t, opts.Path, newer.Path)
	mutate(t, newer.Path, func(btx *bbolt.Tx) error {
		return btx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint16(nil, 9))
	})
	if _, err := store.Open(newer); !errors.Is(err, store.ErrSchema) || !strings.Contains(err.Error(), "9") {
		t.Errorf("newer schema: %v", err)
	}
	if _, err := store.Check(newer.Path, newer.Keyring); !errors.Is(err, store.ErrSchema) {
		t.Errorf("check of newer schema: %v", err)
	}
	if _, err := store.Check(filepath.Join(dir, "none"), opts.Keyring); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("check of nothing: %v", err)
	}
}

func TestLeftoverOfACrashedCreationIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v.db")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t, store.Options{Path: path})
	s.Close()
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("leftover is still there: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("store has mode %v, %v", info.Mode(), err)
	}
}

// mutate changes a closed store behind its back.
func mutate(t testing.TB, path string, fn func(btx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func fileHolds(t testing.TB, path string, what []byte) bool {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(raw, what)
}
