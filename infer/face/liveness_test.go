package face_test

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/infer/preset"
	"vigil/sensors"
	"vigil/sensors/replay"
)

// presetOf is a preset that must be there.
func presetOf(t testing.TB, name string) *infer.Manifest {
	t.Helper()
	m, err := preset.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pipeline is a preset over the models of the data folder.
func pipeline(t testing.TB, name string) *face.Pipeline {
	t.Helper()
	model, err := infer.FromDir(os.DirFS(infertest.Data(t, "models")), presetOf(t, name))
	if err != nil {
		t.Fatal(err)
	}
	p, err := face.New(t.Context(), infertest.Runtime(t), model)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// portraits picks n pictures evenly over the people of the public set, one each.
func portraits(t testing.TB, n int) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw"), "*", "*_0001.jpg"))
	if err != nil || len(files) < n {
		t.Skipf("the data set has %d people, the test needs %d (%v)", len(files), n, err)
	}
	for i := range n {
		list = append(list, files[i*len(files)/n])
	}
	return list
}

// livenessPresets are those with a liveness stage, with the least share of portraits that must be bona fide. What they
// reach on 300 is a few points more.
var livenessPresets = map[string]float64{"face-liveness": 0.75, "face-antispoof128": 0.8, "face-antispoof128-int8": 0.8}

// TestLivenessOfOpenPictures: the two open pictures of a face and of a picture of a face, and the share of portraits that
// are taken for bona fide. `VIGIL_PORTRAITS=300 go test ./infer/face -run TestLivenessOfOpenPictures -v` prints the
// figures in the presets.
func TestLivenessOfOpenPictures(t *testing.T) {
	n := 30
	if text := os.Getenv("VIGIL_PORTRAITS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	files := portraits(t, n)
	for name, share := range livenessPresets {
		p, least := pipeline(t, name), presetOf(t, name).Liveness.Score
		real, fake := largest(t, p, load(t, "spoof", "real_T1.jpg")), largest(t, p, load(t, "spoof", "fake_F1.jpg"))
		t.Logf("%s: real_T1 %.4f, fake_F1 %.4f", name, real.Liveness, fake.Liveness)
		if !real.HasLiveness || real.Liveness < 0.9 || fake.Liveness > 0.3 || len(fake.Values) == 0 || fake.Attack {
			t.Errorf("%s: not told apart, or refused without being asked to: %+v %+v", name, real, fake)
		}
		var scores []float32
		for _, file := range files {
			r := process(t, p, load(t, "faces", "lfw", filepath.Base(filepath.Dir(file)), filepath.Base(file)))
			if len(r.Faces) > 0 {
				scores = append(scores, r.Faces[0].Liveness)
			}
		}
		slices.Sort(scores)
		below, _ := slices.BinarySearch(scores, least)
		bonaFide := 1 - float64(below)/float64(len(scores))
		at := func(q int) float32 { return scores[len(scores)*q/100] }
		t.Logf("%s: %d of %d portraits are bona fide at %.2f (BPCER %.1f %%); scores: 1 %% below %.3f, 5 %% %.3f, 10 %% %.3f, half %.3f",
			name, len(scores)-below, len(scores), least, 100*(1-bonaFide), at(1), at(5), at(10), at(50))
		if bonaFide < share {
			t.Errorf("%s: only %.1f %% are bona fide", name, 100*bonaFide)
		}
	}
}

// TestLivenessOfLivingPeople: people before a camera, every fifth frame of their clips: of one clip each, or of all with
// VIGIL_PORTRAITS set; -v prints the figures. A floor of a half keeps a broken crop from passing; what is reached is in
// the log.
func TestLivenessOfLivingPeople(t *testing.T) {
	pattern := "[abw]*.mjpeg"
	if os.Getenv("VIGIL_PORTRAITS") != "" {
		pattern = "*.mjpeg"
	}
	files, err := filepath.Glob(filepath.Join(infertest.Data(t, "clips"), "P*", pattern))
	if err != nil || len(files) == 0 {
		t.Skipf("the data set has no clips (%v)", err)
	}
	frames := everyFifth(t, files)
	for name := range livenessPresets {
		p, least := pipeline(t, name), presetOf(t, name).Liveness.Score
		r, alive, faces := p.NewResult(), 0, 0
		for _, f := range frames {
			if err := p.Process(t.Context(), f, r); err != nil {
				t.Fatal(err)
			}
			for i := range r.Faces {
				faces++
				if r.Faces[i].Liveness >= least {
					alive++
				}
			}
		}
		t.Logf("%s: %d of %d faces in %d clips are bona fide (BPCER %.1f %%)", name, alive, faces, len(files), 100*(1-float64(alive)/float64(faces)))
		if faces < 10 || 2*alive < faces {
			t.Errorf("%s: only %d of %d", name, alive, faces)
		}
	}
}

// everyFifth are copies of every fifth frame of the clips.
func everyFifth(t *testing.T, files []string) (list []*sensors.Frame) {
	t.Helper()
	for _, file := range files {
		src, err := replay.Open(replay.Options{Name: "clip", Path: file, Step: true})
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			f, err := src.Next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n%5 == 0 {
				c := &sensors.Frame{Format: f.Format, Width: f.Width, Height: f.Height, FullRange: f.FullRange, Planes: f.Planes}
				for i := range c.Planes {
					c.Planes[i].Data = slices.Clone(f.Planes[i].Data)
				}
				list = append(list, c)
			}
			f.Release()
		}
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// TestRequiredLivenessLeavesAttacksUnembedded, on the real models.
func TestRequiredLivenessLeavesAttacksUnembedded(t *testing.T) {
	p := pipeline(t, "face-liveness")
	if err := p.RequireLiveness(0); err != nil {
		t.Fatal(err)
	}
	r := p.NewResult()
	for _, c := range []struct {
		file   string
		attack bool
	}{{"real_T1.jpg", false}, {"fake_F1.jpg", true}, {"real_T1.jpg", false}} {
		if err := p.Process(t.Context(), load(t, "spoof", c.file), r); err != nil || len(r.Faces) == 0 {
			t.Fatal(err, len(r.Faces))
		}
		f, embed := r.Faces[0], r.Timings[len(r.Timings)-1]
		if f.Attack != c.attack || (len(f.Values) == 0) != c.attack || (embed.Took == 0) != c.attack {
			t.Errorf("%s: attack %v, %d values, embedded in %v", c.file, f.Attack, len(f.Values), embed.Took)
		}
	}
}

func TestLivenessAllocatesNothing(t *testing.T) {
	for name := range livenessPresets {
		p := pipeline(t, name)
		f := load(t, "photos", "obama_family.jpg")
		r := process(t, p, f)
		if n := testing.AllocsPerRun(3, func() {
			if err := p.Process(t.Context(), f, r); err != nil {
				t.Fatal(err)
			}
		}); n != 0 || len(r.Faces) != 4 {
			t.Errorf("%s: %v allocations per frame of %d faces", name, n, len(r.Faces))
		}
	}
}

// TestTheAverageFaceOfABox: where the preset for boxes puts the five points is where YuNet finds them, on average.
func TestTheAverageFaceOfABox(t *testing.T) {
	points, boxes := pipeline(t, "face"), pipeline(t, "face-ultraface")
	var sum [10]float64
	n := 0.0
	for _, file := range portraits(t, 60) {
		f := load(t, "faces", "lfw", filepath.Base(filepath.Dir(file)), filepath.Base(file))
		a, b := process(t, points, f), process(t, boxes, f)
		if len(a.Faces) != 1 || len(b.Faces) != 1 {
			continue
		}
		if b.Faces[0].Landmarks || !a.Faces[0].Landmarks {
			t.Fatal("boxes have landmarks, or points have none")
		}
		n++
		for i := range sum {
			sum[i] += float64(a.Faces[0].Points[i]-b.Faces[0].Points[i]) / float64(b.Faces[0].Box[2+i%2])
		}
	}
	for i := range sum {
		if off := sum[i] / n; math.Abs(off) > 0.025 {
			t.Errorf("coordinate %d lies %.3f of a box away from the preset's", i, off)
		}
	}
	if n < 40 {
		t.Errorf("only %v pictures with one face for both", n)
	}
}

// TestOtherDetectorsFindTheFamily: the same four faces, at the same places.
func TestOtherDetectorsFindTheFamily(t *testing.T) {
	f := load(t, "photos", "obama_family.jpg")
	want := process(t, pipeline(t, "face"), f)
	for _, name := range []string{"face-yunet640", "face-yunet640x480", "face-ultraface"} {
		got := process(t, pipeline(t, name), f)
		if len(got.Faces) != len(want.Faces) || len(want.Faces) != 4 {
			t.Errorf("%s finds %d faces, face %d", name, len(got.Faces), len(want.Faces))
			continue
		}
		for i := range got.Faces {
			if !slices.ContainsFunc(want.Faces, func(w face.Face) bool { return iou(w.Box, got.Faces[i].Box) > 0.4 }) {
				t.Errorf("%s: nobody else finds a face at %v", name, got.Faces[i].Box)
			}
		}
	}
}

func iou(a, b [4]float32) float32 {
	w, h := min(a[0]+a[2], b[0]+b[2])-max(a[0], b[0]), min(a[1]+a[3], b[1]+b[3])-max(a[1], b[1])
	if w <= 0 || h <= 0 {
		return 0
	}
	return w * h / (a[2]*a[3] + b[2]*b[3] - w*h)
}

func BenchmarkProcessWithLiveness(b *testing.B) {
	for _, name := range []string{"face", "face-liveness", "face-antispoof128"} {
		b.Run(name, func(b *testing.B) {
			p := pipeline(b, name)
			f := load(b, "spoof", "real_T1.jpg")
			r := p.NewResult()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Process(context.Background(), f, r); err != nil {
					b.Fatal(err)
				}
			}
			for _, s := range r.Timings {
				b.ReportMetric(float64(s.Took.Microseconds()), s.Stage+"-us")
			}
		})
	}
}
