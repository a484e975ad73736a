package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"vigil/store"
	"vigil/store/storetest"
)

// nearest is a Comparer of rows by their mean difference, which no dot product gives.
type nearest struct {
	probe []int8
	wiped *int
}

func (n *nearest) SetProbe(row []int8) error {
	if len(row) > 0 && row[0] == 127 {
		return errors.New("no row")
	}
	n.probe = row
	return nil
}

func (n *nearest) Score(row []int8) float32 {
	var d int
	for i, v := range row {
		d += max(int(v)-int(n.probe[i]), int(n.probe[i])-int(v))
	}
	return 1 / (1 + float32(d))
}

func (n *nearest) Wipe() { n.probe = nil; *n.wiped++ }

func TestAGalleryScoresByItsComparer(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	const dim = 4736 // longer than any vector
	wiped := 0
	subjects := map[string][]store.Template{}
	update(t, s, func(tx *store.Tx) error {
		for range 70 { // more than the first buffer of a gallery holds
			id := store.NewSubjectID()
			subjects[id] = []store.Template{randomTemplate(rng, model, dim), randomTemplate(rng, model, dim)}
			if err := tx.PutSubject(store.Subject{ID: id}, subjects[id]); err != nil {
				return err
			}
		}
		return nil
	})
	check := func(s *store.Store) {
		t.Helper()
		g := s.Gallery(model)
		g.CompareBy(func() store.Comparer { return &nearest{wiped: &wiped} })
		for id, templates := range subjects {
			probe := store.Probe{Values: append([]int8(nil), templates[1].Values...), Scale: 1}
			probe.Values[0] = 3
			best := g.Identify(probe, make([]store.Match, 0, 2))
			if len(best) != 2 || best[0].SubjectID != id || best[0].Score <= best[1].Score {
				t.Fatalf("%s is answered with %v", id, best)
			}
			if score, ok := g.Verify(id, probe); !ok || score != best[0].Score {
				t.Fatalf("verify gives %v, %v, identify %v", score, ok, best[0].Score)
			}
			probe.Values[0] = 127
			if got := g.Identify(probe, make([]store.Match, 0, 2)); len(got) != 0 {
				t.Fatalf("a probe that the comparer refuses is answered with %v", got)
			}
			if _, ok := g.Verify(id, probe); ok {
				t.Fatal("a probe that the comparer refuses is verified")
			}
		}
		if want := 4 * len(subjects); wiped < want {
			t.Errorf("comparers were wiped %d times in %d calls", wiped, want)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wiped = 0
	check(storetest.Open(t, opts))
}

func TestTemplatesAreBounded(t *testing.T) {
	s := storetest.Open(t, store.Options{})
	for _, dim := range []int{15, 16385} {
		t.Run(fmt.Sprint(dim), func(t *testing.T) {
			template := store.Template{ModelID: model, Values: make([]int8, dim), Scale: 1}
			err := s.Update(t.Context(), func(tx *store.Tx) error {
				return tx.PutSubject(store.Subject{ID: store.NewSubjectID()}, []store.Template{template})
			})
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("a template of %d values: %v", dim, err)
			}
		})
	}
}
