package store_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vigil/store"
	"vigil/store/storetest"
)

// TestNothingInClear writes marked data of every kind and looks for the marks in
// every file of the folder, before and after deleting.
func TestNothingInClear(t *testing.T) {
	rng := newRand(t)
	dir := t.TempDir()
	opts := store.Options{Path: filepath.Join(dir, "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	tm := randomTemplate(rng, "face-secret-model", 512)
	values := make([]byte, len(tm.Values))
	for i, v := range tm.Values {
		values[i] = byte(v)
	}
	marks := map[string][]byte{
		"name":             []byte("Marked Person"),
		"template":         values[:32],
		"end of template":  values[480:],
		"model":            []byte("face-secret-model"),
		"audit type":       []byte("marked-decision"),
		"audit detail":     []byte("marked-detail"),
		"outbox payload":   []byte("marked-payload"),
		"command id":       []byte("marked-command"),
		"command result":   []byte("marked-result"),
		"result in base64": []byte("bWFya2VkLXJlc3VsdA"),
		"setting":          []byte("marked-setting"),
	}
	id := enrol(t, s, "Marked Person", tm)
	update(t, s, func(tx *store.Tx) error {
		_, errAudit := tx.AppendAudit(store.AuditEvent{Type: "marked-decision", Detail: map[string]any{"x": "marked-detail"}})
		_, errOutbox := tx.AppendOutbox("event", []byte("marked-payload"))
		return errors.Join(errAudit, errOutbox,
			tx.RecordCommand("marked-command", time.Now().Add(time.Hour), []byte("marked-result")),
			tx.Put("lockout", []byte("marked-setting")))
	})
	search := func(when string) {
		t.Helper()
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			for what, mark := range marks {
				if fileHolds(t, filepath.Join(dir, f.Name()), mark) {
					t.Errorf("%s: %s stands in clear in %s", when, what, f.Name())
				}
			}
		}
	}
	search("written")
	rawID, _ := hex.DecodeString(id)
	if !fileHolds(t, opts.Path, rawID) {
		t.Fatal("the search does not find what is known to be in clear")
	}
	deleteSubject(t, s, id)
	search("deleted")
	s.Close()
	search("closed")
}

// TestDeletingErasesTheKey looks for the wrapped DEK of a deleted subject in the
// whole file, freed pages included.
func TestDeletingErasesTheKey(t *testing.T) {
	rng := newRand(t)
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	var ids []string
	for range 60 { // enough for the key to have been copied from page to page
		ids = append(ids, enrol(t, s, "n", randomTemplate(rng, model, 128)))
	}
	wrapped := func(id string) []byte { return s.RawRecord("subject_keys", id) }
	gone := map[string][]byte{ids[7]: wrapped(ids[7]), ids[31]: wrapped(ids[31])}
	stays := wrapped(ids[8])
	if len(stays) == 0 || !fileHolds(t, opts.Path, stays) {
		t.Fatal("cannot find a key that is there")
	}
	// A View that was open before the deletion must go on seeing the subject, so
	// the overwriting waits for it.
	release, done := make(chan struct{}), make(chan struct{})
	started := make(chan struct{})
	go func() {
		defer close(done)
		view(t, s, func(tx *store.Tx) error {
			close(started)
			<-release
			_, err := tx.Subject(ids[7])
			return err
		})
	}()
	<-started
	deleteSubject(t, s, ids[7])
	if !fileHolds(t, opts.Path, gone[ids[7]]) {
		t.Error("the key was overwritten under an open View")
	}
	close(release)
	<-done
	deleteSubject(t, s, ids[31])
	// Many at once free more pages than the commits after them use again.
	update(t, s, func(tx *store.Tx) error {
		for _, id := range ids[32:] {
			gone[id] = wrapped(id)
			if err := tx.DeleteSubject(id); err != nil {
				return err
			}
		}
		return nil
	})
	for id, key := range gone {
		if fileHolds(t, opts.Path, key) {
			t.Errorf("the key of deleted subject %s is still in the file", id)
		}
	}
	if !fileHolds(t, opts.Path, stays) {
		t.Error("the key of another subject is gone")
	}
}

// TestErasureSurvivesACrash stops between the deletion and the overwriting.
func TestErasureSurvivesACrash(t *testing.T) {
	dir := t.TempDir()
	rng := newRand(t)
	opts := store.Options{Path: filepath.Join(dir, "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	var ids []string
	for range 60 {
		ids = append(ids, enrol(t, s, "n", randomTemplate(rng, model, 128)))
	}
	var keys [][]byte
	for _, id := range ids {
		keys = append(keys, s.RawRecord("subject_keys", id))
	}
	left := func(path string) (n int) {
		for _, key := range keys {
			if fileHolds(t, path, key) {
				n++
			}
		}
		return n
	}
	err := s.CommitOnly(func(tx *store.Tx) error {
		for _, id := range ids {
			if err := tx.DeleteSubject(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	crashed := store.Options{Path: filepath.Join(dir, "crashed.db"), Keyring: opts.Keyring}
	copyFile(t, opts.Path, crashed.Path)
	if left(crashed.Path) == 0 {
		t.Fatal("nothing is left to overwrite")
	}
	storetest.Open(t, crashed)
	if n := left(crashed.Path); n != 0 {
		t.Errorf("%d keys are still in the file after the next start", n)
	}
	// And the ordinary way.
	s.Close()
	if n := left(opts.Path); n != 0 {
		t.Errorf("%d keys are still in the file after Close", n)
	}
}
