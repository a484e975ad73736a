package store_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"vigil/store"
	"vigil/store/storetest"
)

// bruteForce scores every subject in float32 over dequantised templates.
func bruteForce(subjects map[string][]store.Template, probe store.Probe) []store.Match {
	var out []store.Match
	for id, templates := range subjects {
		best := float32(math.Inf(-1))
		for _, t := range templates {
			var sum float32
			for i, v := range t.Values {
				sum += float32(v) * t.Scale * (float32(probe.Values[i]) * probe.Scale)
			}
			best = max(best, sum)
		}
		out = append(out, store.Match{SubjectID: id, Score: best})
	}
	slices.SortFunc(out, func(a, b store.Match) int {
		if a.Score != b.Score {
			return -int(math.Copysign(1, float64(a.Score-b.Score)))
		}
		return strings.Compare(a.SubjectID, b.SubjectID)
	})
	return out
}

// equalMatches compares the best top results with all that there are, of which
// one was rounded differently: scores within 1e-5 at every rank, and subjects
// where the ranks are further apart.
func equalMatches(t *testing.T, got, want []store.Match, top int) {
	t.Helper()
	const tolerance = 1e-5
	if len(got) != top {
		t.Fatalf("got %d matches, want %d", len(got), top)
	}
	for i := range got {
		if d := math.Abs(float64(got[i].Score - want[i].Score)); d > tolerance {
			t.Errorf("rank %d: score %v, want %v", i, got[i].Score, want[i].Score)
		}
		apart := (i == 0 || want[i-1].Score-want[i].Score > 2*tolerance) && (i == len(want)-1 || want[i].Score-want[i+1].Score > 2*tolerance)
		if apart && got[i].SubjectID != want[i].SubjectID {
			t.Errorf("rank %d: subject %s, want %s", i, got[i].SubjectID, want[i].SubjectID)
		}
	}
}

func TestGalleryEqualsBruteForce(t *testing.T) {
	for _, dim := range []int{16, 100, 128, 200, 256, 512, 1024} {
		for _, size := range []int{1, 2, 40, 300} {
			t.Run(fmt.Sprintf("dim %d, %d subjects", dim, size), func(t *testing.T) { compareGallery(t, dim, size) })
		}
	}
}

// compareGallery enrols, deletes and enrols again, reopens, and compares with
// brute force at each step.
func compareGallery(t *testing.T, dim, size int) {
	rng := newRand(t)
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	subjects := make(map[string][]store.Template)
	add := func(n int) {
		update(t, s, func(tx *store.Tx) error {
			for range n {
				id := store.NewSubjectID()
				var templates []store.Template
				for range 1 + rng.IntN(3) {
					templates = append(templates, randomTemplate(rng, model, dim))
				}
				subjects[id] = templates
				if err := tx.PutSubject(store.Subject{ID: id}, templates); err != nil {
					return err
				}
			}
			return nil
		})
	}
	drop := func(n int) {
		update(t, s, func(tx *store.Tx) error {
			for id := range subjects {
				if n--; n < 0 {
					return nil
				}
				delete(subjects, id)
				if err := tx.DeleteSubject(id); err != nil {
					return err
				}
			}
			return nil
		})
	}
	compare := func() {
		t.Helper()
		g := s.Gallery(model)
		if g.DirtyRows() != 0 {
			t.Error("rows that are not in use are not zero")
		}
		for range 3 {
			probe := probeOf(randomTemplate(rng, model, dim))
			want := bruteForce(subjects, probe)
			equalMatches(t, g.Identify(probe, make([]store.Match, 0, len(want)+1)), want, len(want))
			equalMatches(t, g.Identify(probe, make([]store.Match, 3, 5)), want, min(5, len(want)))
			for _, m := range want {
				if score, ok := g.Verify(m.SubjectID, probe); !ok || math.Abs(float64(score-m.Score)) > 1e-5 {
					t.Errorf("verify gives %v, %v; want %v", score, ok, m.Score)
				}
			}
		}
	}
	add(size)
	compare()
	drop(size / 2)
	compare()
	add(size/2 + 1)
	compare()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.Open(t, opts)
	compare()
	drop(len(subjects))
	if got := s.Gallery(model).Identify(probeOf(randomTemplate(rng, model, dim)), make([]store.Match, 0, 3)); len(got) != 0 {
		t.Errorf("empty gallery answers %v", got)
	}
}

func TestTiesAreBrokenByID(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	same := randomTemplate(rng, model, 128)
	var ids []string
	for range 9 {
		ids = append(ids, enrol(t, s, "twin", same, same))
	}
	slices.Sort(ids)
	for _, k := range []int{1, 4, 9, 20} {
		got := s.Gallery(model).Identify(probeOf(same), make([]store.Match, 0, k))
		if len(got) != min(k, len(ids)) {
			t.Fatalf("got %d matches for k = %d", len(got), k)
		}
		for i := range got {
			if got[i].SubjectID != ids[i] {
				t.Errorf("k = %d, rank %d: %s, want %s", k, i, got[i].SubjectID, ids[i])
			}
		}
	}
}

func TestProbesThatFitNothing(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	good := randomTemplate(rng, model, 128)
	id := enrol(t, s, "x", good)
	g := s.Gallery(model)
	nan := float32(math.NaN())
	for name, probe := range map[string]store.Probe{
		"short":    {Values: good.Values[:64], Scale: good.Scale},
		"long":     {Values: make([]int8, 256), Scale: 1},
		"none":     {},
		"no scale": {Values: good.Values},
		"NaN":      {Values: good.Values, Scale: nan},
	} {
		if got := g.Identify(probe, make([]store.Match, 0, 2)); len(got) != 0 {
			t.Errorf("%s: identify gives %v", name, got)
		}
		if score, ok := g.Verify(id, probe); ok {
			t.Errorf("%s: verify gives %v", name, score)
		}
	}
	if got := g.Identify(probeOf(good), nil); len(got) != 0 {
		t.Errorf("no room: identify gives %v", got)
	}
	if _, ok := g.Verify(store.NewSubjectID(), probeOf(good)); ok {
		t.Error("unknown subject is verified")
	}
	s.Close()
	if got := g.Identify(probeOf(good), make([]store.Match, 0, 2)); len(got) != 0 {
		t.Errorf("closed: identify gives %v", got)
	}
}

func TestIdentifyDuringUpdates(t *testing.T) {
	rng := newRand(t)
	s := storetest.Open(t, store.Options{})
	fixed := randomTemplate(rng, model, 256)
	id := enrol(t, s, "fixed", fixed)
	g := s.Gallery(model)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			dst := make([]store.Match, 0, 4)
			for ctx.Err() == nil {
				dst = g.Identify(probeOf(fixed), dst)
				if len(dst) == 0 || dst[0].SubjectID != id || dst[0].Score < 0.999 {
					t.Errorf("lost sight of the fixed subject: %v", dst)
					return
				}
				// Others come and go in pairs, so an even number is a half update.
				if subjects, _ := g.Len(); subjects%2 == 0 {
					t.Errorf("half an update is visible: %d subjects", subjects)
					return
				}
			}
		})
	}
	for range 40 {
		a, b := store.NewSubjectID(), store.NewSubjectID()
		update(t, s, func(tx *store.Tx) error {
			for _, id := range []string{a, b} {
				if err := tx.PutSubject(store.Subject{ID: id}, []store.Template{randomTemplate(rng, model, 256), randomTemplate(rng, model, 256)}); err != nil {
					return err
				}
			}
			return nil
		})
		if rng.IntN(2) == 0 {
			update(t, s, func(tx *store.Tx) error {
				if err := tx.DeleteSubject(a); err != nil {
					return err
				}
				return tx.DeleteSubject(b)
			})
		}
	}
	stop()
	wg.Wait()
}

func TestIdentifyDoesNotAllocate(t *testing.T) {
	s, probe := bigGallery(t, 1000)
	g, dst := s.Gallery(model), make([]store.Match, 0, 5)
	if n := testing.AllocsPerRun(50, func() { dst = g.Identify(probe, dst) }); n != 0 {
		t.Errorf("identify allocates %v times", n)
	}
	id := dst[0].SubjectID
	if n := testing.AllocsPerRun(50, func() { g.Verify(id, probe) }); n != 0 {
		t.Errorf("verify allocates %v times", n)
	}
}

// bigGallery enrols subjects with one template of 512 values each.
func bigGallery(t testing.TB, subjects int) (*store.Store, store.Probe) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := storetest.Open(t, store.Options{})
	for done := 0; done < subjects; done += 500 {
		update(t, s, func(tx *store.Tx) error {
			for range min(500, subjects-done) {
				if err := tx.PutSubject(store.Subject{ID: store.NewSubjectID()}, []store.Template{randomTemplate(rng, model, 512)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return s, probeOf(randomTemplate(rng, model, 512))
}

func BenchmarkIdentify10k(b *testing.B) {
	s, probe := bigGallery(b, 10_000)
	g, dst := s.Gallery(model), make([]store.Match, 0, 5)
	b.ReportAllocs()
	for b.Loop() {
		dst = g.Identify(probe, dst)
	}
}

func BenchmarkVerify(b *testing.B) {
	s, probe := bigGallery(b, 1000)
	g := s.Gallery(model)
	id := g.Identify(probe, make([]store.Match, 0, 1))[0].SubjectID
	b.ReportAllocs()
	for b.Loop() {
		g.Verify(id, probe)
	}
}

func BenchmarkUpdate(b *testing.B) {
	s := storetest.Open(b, store.Options{})
	for b.Loop() {
		update(b, s, func(tx *store.Tx) error {
			if _, err := tx.AppendAudit(store.AuditEvent{Type: "decision"}); err != nil {
				return err
			}
			_, err := tx.AppendOutbox("decision", []byte("{}"))
			return err
		})
	}
}
