package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigil/store"
	"vigil/store/storetest"
)

// addTo adds templates to a subject, each from one sample.
func addTo(id string, templates ...store.Template) func(tx *store.Tx) error {
	return func(tx *store.Tx) error { return tx.AddTemplates(id, len(templates), templates) }
}

// expectCount expects this many subjects and templates, in the file and in the gallery of model.
func expectCount(t *testing.T, when string, s *store.Store, subjects, templates, inGallery int) {
	t.Helper()
	view(t, s, func(tx *store.Tx) error {
		if n, m, err := tx.Count(); err != nil || n != subjects || m != templates {
			t.Errorf("%s: %d subjects, %d templates, %v; want %d and %d", when, n, m, err, subjects, templates)
		}
		return nil
	})
	if _, n := s.Gallery(model).Len(); n != inGallery {
		t.Errorf("%s: the gallery holds %d templates, want %d", when, n, inGallery)
	}
}

// expectBest expects the subject to be the best candidate for its own template, and to pass for itself.
func expectBest(t *testing.T, when string, s *store.Store, id string, tm store.Template) {
	t.Helper()
	g := s.Gallery(tm.ModelID)
	best := g.Identify(probeOf(tm), make([]store.Match, 0, 1))
	if len(best) != 1 || best[0].SubjectID != id || best[0].Score < 0.9999 {
		t.Errorf("%s: best candidate is %+v, want %s", when, best, id)
	}
	if score, ok := g.Verify(id, probeOf(tm)); !ok || score < 0.9999 {
		t.Errorf("%s: %s scores %v, %v against its own template", when, id, score, ok)
	}
}

func TestAddedTemplatesSurviveReopening(t *testing.T) {
	rng := newRand(t)
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	expectCount(t, "empty", s, 0, 0, 0)
	first, second, third := randomTemplate(rng, model, 256), randomTemplate(rng, model, 256), randomTemplate(rng, "finger-test-1", 128)
	ada := enrol(t, s, "Ada Example", first)
	bob := enrol(t, s, "Bob Example", randomTemplate(rng, model, 256), randomTemplate(rng, model, 256))
	expectCount(t, "enrolled", s, 2, 3, 3)
	update(t, s, addTo(ada, second))
	expectCount(t, "one added", s, 2, 4, 4)
	update(t, s, addTo(ada, third))
	expectCount(t, "another model's added", s, 2, 5, 4)
	check := func(when string) {
		t.Helper()
		for _, tm := range []store.Template{first, second, third} {
			expectBest(t, when, s, ada, tm)
		}
		view(t, s, func(tx *store.Tx) error {
			sub, err := tx.Subject(ada)
			want := store.Subject{ID: ada, Name: "Ada Example", Created: time.Unix(1700000000, 0).UTC(), Samples: 3, Templates: 3}
			if err != nil || sub != want {
				t.Errorf("%s: %+v, %v; want %+v", when, sub, err, want)
			}
			return nil
		})
	}
	check("at once")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, opts.Path, opts.Keyring)
	s = storetest.Open(t, opts)
	check("reopened")
	expectCount(t, "reopened", s, 2, 5, 4)
	deleteSubject(t, s, ada)
	expectCount(t, "deleted", s, 1, 2, 2)
	if _, ok := s.Gallery(third.ModelID).Verify(ada, probeOf(third)); ok {
		t.Error("an added template outlives its subject")
	}
	update(t, s, addTo(bob, second))
	expectBest(t, "given to another", s, bob, second)
}

func TestAddTemplatesInOneTransaction(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	a, b, c := randomTemplate(rng, model, 128), randomTemplate(rng, model, 128), randomTemplate(rng, model, 128)
	id := store.NewSubjectID()
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.PutSubject(store.Subject{ID: id, Name: "n", Samples: 1}, []store.Template{a}), addTo(id, b)(tx), addTo(id, c)(tx))
	})
	for _, tm := range []store.Template{a, b, c} {
		expectBest(t, "put and added to", s, id, tm)
	}
	expectCount(t, "put and added to", s, 1, 3, 3)
	abandon := errors.New("abandoned")
	d := randomTemplate(rng, model, 128)
	err := s.Update(context.Background(), func(tx *store.Tx) error {
		if err := addTo(id, d)(tx); err != nil {
			return err
		}
		if n, m, err := tx.Count(); err != nil || n != 1 || m != 4 {
			t.Errorf("inside the transaction: %d subjects, %d templates, %v", n, m, err)
		}
		return abandon
	})
	if !errors.Is(err, abandon) {
		t.Fatal(err)
	}
	expectCount(t, "abandoned", s, 1, 3, 3)
	if score, _ := s.Gallery(model).Verify(id, probeOf(d)); score > 0.9 {
		t.Errorf("a template that was abandoned scores %v", score)
	}
	update(t, s, func(tx *store.Tx) error { return errors.Join(addTo(id, d)(tx), tx.DeleteSubject(id)) })
	expectCount(t, "added to and deleted", s, 0, 0, 0)
}

func TestAddTemplatesRefusals(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	many := make([]store.Template, 65)
	for i := range many {
		many[i] = randomTemplate(rng, model, 128)
	}
	id := enrol(t, s, "there", many[0])
	full := enrol(t, s, "full", many[:64]...)
	gone := enrol(t, s, "gone", many[0])
	deleteSubject(t, s, gone)
	unscaled := many[0]
	unscaled.Scale = 0
	for _, c := range []struct {
		name string
		want error
		do   func(tx *store.Tx) error
	}{
		{"unknown", store.ErrNotFound, addTo(store.NewSubjectID(), many[0])},
		{"deleted", store.ErrNotFound, addTo(gone, many[0])},
		{"deleted in this transaction", store.ErrNotFound, func(tx *store.Tx) error {
			if err := tx.DeleteSubject(id); err != nil {
				return err
			}
			return addTo(id, many[0])(tx)
		}},
		{"no id", store.ErrInvalid, addTo("there", many[0])},
		{"upper-case id", store.ErrInvalid, addTo(strings.Repeat("AB", 16), many[0])},
		{"none", store.ErrInvalid, addTo(id)},
		{"fewer samples than none", store.ErrInvalid, func(tx *store.Tx) error { return tx.AddTemplates(id, -1, many[:1]) }},
		{"65 at once", store.ErrInvalid, addTo(id, many...)},
		{"64 to one", store.ErrInvalid, addTo(id, many[:64]...)},
		{"one to 64", store.ErrInvalid, addTo(full, many[0])},
		{"63 to one, then one", store.ErrInvalid, func(tx *store.Tx) error {
			if err := addTo(id, many[:63]...)(tx); err != nil {
				t.Errorf("63 to one: %v", err)
			}
			return addTo(id, many[0])(tx)
		}},
		{"no scale", store.ErrInvalid, addTo(id, unscaled)},
		{"other length", store.ErrModel, addTo(id, randomTemplate(rng, model, 64))},
		{"two lengths of a new model", store.ErrModel, addTo(id, randomTemplate(rng, "new", 64), randomTemplate(rng, "new", 128))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := s.Update(context.Background(), c.do); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			expectCount(t, "refused", s, 2, 65, 65)
		})
	}
	if err := s.View(context.Background(), addTo(id, many[0])); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("inside View: %v", err)
	}
	var late *store.Tx
	view(t, s, func(tx *store.Tx) error { late = tx; return nil })
	if _, _, err := late.Count(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("count after the transaction: %v", err)
	}
	update(t, s, addTo(id, many[:63]...))
	expectCount(t, "63 to one", s, 2, 128, 128)
}
