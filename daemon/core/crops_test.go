package core_test

import (
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/decide"
	"vigil/infer/infertest/fake"
	"vigil/sensors/picture"
)

// TestTemplatesAreMadeAgainFromKeptPictures: with pictures of the enrolments another model catches up by itself; who was
// enrolled without them stays known by the model before.
func TestTemplatesAreMadeAgainFromKeptPictures(t *testing.T) {
	d, _ := swappable(t, fake.Manifest("old", false), nil)
	a := d.Open(t)
	bob := enrollPlayed(t, a, 5) // before the policy allowed it
	closeApp(t, a)
	d.Config.Policy.KeepEnrolmentCrops = true
	a = d.Open(t)
	ann := enrollPlayed(t, a, 2)
	if n := len(a.KeptCrops(t, bob)); n != 0 {
		t.Errorf("%d pictures were kept although the policy forbade it", n)
	}
	crops := a.KeptCrops(t, ann)
	if len(crops) != 2 {
		t.Fatalf("%d pictures were kept, want 2", len(crops))
	}
	if pic, err := core.ParseCrop(crops[0]); err != nil || picture.Check(pic.Data) != nil || pic.DPI != 0 {
		t.Errorf("a kept picture: %v, %v dpi", err, pic.DPI)
	}
	importSecond(t, a, "new", "fake embedder of next year")
	if r := must[core.SwapReport](t)(a.SwapModel(t.Context(), "new")); r.Left != 2 {
		t.Errorf("report %+v", r)
	}
	a.Tend(t.Context())
	s := faceStatus(t, a)
	if s.Elder != "old" || s.Left != 1 || s.CatchUp == nil || *s.CatchUp != (core.Progress{People: 2, Done: 1, NoPictures: 1}) {
		t.Errorf("status %+v, %+v", s, s.CatchUp)
	}
	for person, id := range map[int]string{2: ann, 5: bob} {
		if dec := identifyOne(t, a, person); dec.Outcome != decide.Match || dec.Subject != id {
			t.Errorf("person %d: %+v", person, dec)
		}
	}
	if err := a.DeleteSubject(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	a.Tend(t.Context())
	if s := faceStatus(t, a); s.Elder != "" || s.Subjects != 1 {
		t.Errorf("status %+v", s)
	}
	if dec := identifyOne(t, a, 2); dec.Subject != ann || dec.Model != "new" {
		t.Errorf("made again: %+v", dec)
	}
	closeApp(t, a)
}

func FuzzParseCrop(f *testing.F) {
	png := fake.Picture(f, 1, true, true, 1)
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, png...))
	f.Add(append([]byte{1, 0x40, 0x7f, 0x40, 0, 0, 0, 0, 0}, png[:64]...)) // 500 dpi, cut
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		pic, err := core.ParseCrop(b)
		if err == nil && (len(pic.Data) == 0 || !(pic.DPI >= 0 && pic.DPI <= 2000)) {
			t.Errorf("taken: %d bytes at %v dpi", len(pic.Data), pic.DPI)
		}
	})
}
