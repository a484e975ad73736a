package finger_test

import (
	"slices"
	"sync"
	"testing"
)

// TestSharedPipelinesAnswerAlike: at the same time, as one alone does, and after that one was closed.
func TestSharedPipelinesAnswerAlike(t *testing.T) {
	p := built(t)
	print := touch(t, 3, 1, nil)
	f := gray(print.Width, print.Height, print.Gray)
	r := p.NewResult()
	if err := p.Process(t.Context(), f, 0, r); err != nil || !r.Present {
		t.Fatalf("%v, finger %v", err, r.Present)
	}
	want := slices.Clone(r.Values)
	var wg sync.WaitGroup
	for range 2 {
		q, err := p.Share()
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer q.Close()
			r := q.NewResult()
			for range 4 {
				if err := q.Process(t.Context(), f, 0, r); err != nil || !slices.Equal(r.Values, want) {
					t.Errorf("another answer: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
