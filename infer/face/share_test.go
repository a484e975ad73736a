package face_test

import (
	"os"
	"slices"
	"sync"
	"testing"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/infer/infertest/fake"
	"vigil/sensors"
	"vigil/sensors/picture"
)

func decoded(t testing.TB, data []byte) *sensors.Frame {
	t.Helper()
	f, err := picture.Decode(t.Context(), sensors.NewPool(1), data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Release)
	return f
}

// TestSharedPipelinesHoldTheModelsOnce: a second pipeline adds tensors only, and either may be closed first.
func TestSharedPipelinesHoldTheModelsOnce(t *testing.T) {
	for _, firstGoes := range []bool{true, false} {
		rt := fake.New()
		m, err := infer.FromDir(os.DirFS(fake.Write(t, fake.Manifest("fake", true), nil)), nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := face.New(t.Context(), rt, m)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.RequireLiveness(0.5); err != nil {
			t.Fatal(err)
		}
		engines := rt.Leaked() / 2 // each with one set of tensors
		b, err := a.Share()
		if err != nil {
			t.Fatal(err)
		}
		if n := rt.Leaked(); n != 3*engines {
			t.Errorf("%d engines and tensors are open, want %d and %d", n, engines, 2*engines)
		}
		gone, stays := a, b
		if !firstGoes {
			gone, stays = b, a
		}
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		if n := rt.Leaked(); n != 2*engines {
			t.Errorf("%d are open after one was closed, want %d", n, 2*engines)
		}
		if err := stays.Process(t.Context(), decoded(t, fake.Picture(t, 2, false, true, 1)), stays.NewResult()); err != nil {
			t.Errorf("the other does not work any more: %v", err)
		}
		if err := stays.Close(); err != nil {
			t.Fatal(err)
		}
		if n := rt.Leaked(); n != 0 {
			t.Errorf("%d are open at the end", n)
		}
	}
}

// TestSharedPipelinesAnswerAlike: at the same time, and as one alone does.
func TestSharedPipelinesAnswerAlike(t *testing.T) {
	p := infertest.Pipeline(t)
	f := lfw(t, "Hugo_Chavez", 1)
	want := slices.Clone(largest(t, p, f).Values)
	var wg sync.WaitGroup
	for range 3 {
		q, err := p.Share()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer q.Close()
			r := q.NewResult()
			for range 5 {
				if err := q.Process(t.Context(), f, r); err != nil || len(r.Faces) == 0 || !slices.Equal(r.Faces[0].Values, want) {
					t.Errorf("another answer: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
