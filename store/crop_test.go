package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"vigil/store"
	"vigil/store/storetest"
)

// cropped is a store with two people, the first with kept pictures.
func cropped(t *testing.T, opts store.Options) (s *store.Store, ids [2]string) {
	t.Helper()
	s = storetest.Open(t, opts)
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for i := range ids {
			ids[i] = store.NewSubjectID()
			if err := tx.PutSubject(store.Subject{ID: ids[i], Name: "Somebody"}, []store.Template{{ModelID: model, Values: make([]int8, 64), Scale: 1}}); err != nil {
				return err
			}
		}
		n, err := tx.AddCrops(ids[0], [][]byte{[]byte("the first picture"), []byte("the second picture")})
		if n != 2 {
			t.Errorf("%d were kept", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, ids
}

func cropsOf(t *testing.T, s *store.Store, id string) (crops [][]byte, err error) {
	t.Helper()
	err = s.View(t.Context(), func(tx *store.Tx) (err error) {
		crops, err = tx.Crops(id)
		return err
	})
	return crops, err
}

func TestCropsAreKeptAndGoWithTheirPerson(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	keyring := storetest.Keyring(t)
	s, ids := cropped(t, store.Options{Path: path, Keyring: keyring})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(image, []byte("the first picture")) {
		t.Error("a picture lies in clear in the file")
	}
	s = storetest.Open(t, store.Options{Path: path, Keyring: keyring})
	crops, err := cropsOf(t, s, ids[0])
	if err != nil || len(crops) != 2 || string(crops[0]) != "the first picture" || string(crops[1]) != "the second picture" {
		t.Errorf("%q, %v", crops, err)
	}
	if crops, err := cropsOf(t, s, ids[1]); err != nil || len(crops) != 0 {
		t.Errorf("somebody without pictures: %q, %v", crops, err)
	}
	if _, err := cropsOf(t, s, store.NewSubjectID()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if r, err := s.Check(); err != nil || !r.OK() {
		t.Errorf("check: %+v, %v", r, err)
	}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteSubject(ids[0]) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.View(func(btx *bbolt.Tx) error {
		if n := btx.Bucket([]byte("crops")).Stats().KeyN; n != 0 {
			t.Errorf("%d pictures stay behind", n)
		}
		if n := btx.Bucket([]byte("templates")).Stats().KeyN; n != 1 {
			t.Errorf("%d templates are left, want 1", n)
		}
		return nil
	})
}

func TestCropsAreBounded(t *testing.T) {
	s, ids := cropped(t, store.Options{})
	defer s.Close()
	many := make([][]byte, 20)
	for i := range many {
		many[i] = []byte{byte(i)}
	}
	for _, c := range []struct {
		id    string
		crops [][]byte
		kept  int
		err   error
	}{
		{ids[0], many, 14, nil}, // two are there
		{ids[0], many, 0, nil},
		{ids[1], [][]byte{make([]byte, 1<<20+1)}, 0, store.ErrInvalid},
		{ids[1], [][]byte{nil}, 0, store.ErrInvalid},
		{store.NewSubjectID(), many, 0, store.ErrNotFound},
	} {
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			n, err := tx.AddCrops(c.id, c.crops)
			if n != c.kept {
				t.Errorf("%d were kept, want %d", n, c.kept)
			}
			return err
		})
		if !errors.Is(err, c.err) {
			t.Errorf("%v, want %v", err, c.err)
		}
	}
}

func TestCheckFindsDamagedAndOrphanedCrops(t *testing.T) {
	for name, change := range map[string]func(b *bbolt.Bucket, k, v []byte) error{
		"flipped":   func(b *bbolt.Bucket, k, v []byte) error { v[len(v)-1] ^= 1; return b.Put(k, v) },
		"moved":     func(b *bbolt.Bucket, k, v []byte) error { k[len(k)-1] = 9; return b.Put(k, v) },
		"orphan":    func(b *bbolt.Bucket, k, v []byte) error { k[0] ^= 1; return b.Put(k, v) },
		"short key": func(b *bbolt.Bucket, k, v []byte) error { return b.Put(k[:3], v) },
	} {
		path, keyring := filepath.Join(t.TempDir(), "store.db"), storetest.Keyring(t)
		s, _ := cropped(t, store.Options{Path: path, Keyring: keyring})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := path + ".bad"
		if err := os.WriteFile(bad, image, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(bad, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(btx *bbolt.Tx) error {
			b := btx.Bucket([]byte("crops"))
			k, v := b.Cursor().First()
			return change(b, bytes.Clone(k), bytes.Clone(v))
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := store.Check(bad, keyring)
		if err != nil || r.OK() || r.Problems[0].Bucket != "crops" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestMissingIDs(t *testing.T) {
	s, ids := cropped(t, store.Options{})
	defer s.Close()
	old, next := s.Gallery(model), s.Gallery("face-test-2")
	if n := old.Missing(next); n != 2 {
		t.Errorf("%d are missing, want 2", n)
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		return tx.AddTemplates(ids[0], 0, []store.Template{{ModelID: "face-test-2", Values: make([]int8, 32), Scale: 1}})
	})
	if err != nil {
		t.Fatal(err)
	}
	if list := old.MissingIDs(next); len(list) != 1 || list[0] != ids[1] {
		t.Errorf("missing %v, want %s", list, ids[1])
	}
	if n := next.Missing(old); n != 0 {
		t.Errorf("%d are missing the other way", n)
	}
}
