package face_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/infer/preset"
	"vigil/sensors"
)

// pipeline is a preset over the models of the data folder.
func pipeline(t testing.TB, name string) *face.Pipeline {
	t.Helper()
	m, err := preset.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return pipelineOf(t, m)
}

func pipelineOf(t testing.TB, m *infer.Manifest) *face.Pipeline {
	t.Helper()
	model, err := infer.FromDir(os.DirFS(infertest.Data(t, "models")), m)
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

// livenessPresets are those with a liveness stage.
var livenessPresets = []string{"face-liveness", "face-antispoof128", "face-antispoof128-int8"}

// TestLivenessOfOpenPictures: the two open pictures of a face and of a picture of a face, and how many of 300 portraits
// are taken for bona fide. `go test ./infer/face -run TestLivenessOfOpenPictures -v` prints the figures.
func TestLivenessOfOpenPictures(t *testing.T) {
	names := everyNth(t, 300)
	for _, name := range livenessPresets {
		p := pipeline(t, name)
		real, fake := largest(t, p, load(t, "spoof", "real_T1.jpg")), largest(t, p, load(t, "spoof", "fake_F1.jpg"))
		t.Logf("%s: real_T1 %.4f, fake_F1 %.4f", name, real.Liveness, fake.Liveness)
		var scores []float32
		for _, file := range names {
			r := process(t, p, load(t, "faces", "lfw", filepath.Base(filepath.Dir(file)), filepath.Base(file)))
			if len(r.Faces) > 0 {
				scores = append(scores, r.Faces[0].Liveness)
			}
		}
		least := must(t, name).Liveness.Score
		slices.Sort(scores)
		below, _ := slices.BinarySearch(scores, least)
		t.Logf("%s: %d of %d pictures of LFW are bona fide at %.2f (%.1f %%); quantiles 1 %% %.3f, 5 %% %.3f, 10 %% %.3f, 50 %% %.3f", name,
			len(scores)-below, len(scores), least, 100*float64(len(scores)-below)/float64(len(scores)),
			scores[len(scores)/100], scores[len(scores)/20], scores[len(scores)/10], scores[len(scores)/2])
	}
}

func must(t testing.TB, name string) *infer.Manifest {
	t.Helper()
	m, err := preset.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// everyNth picks n pictures evenly over the people of the public set.
func everyNth(t testing.TB, n int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(infertest.Data(t, "faces", "lfw"), "*", "*_0001.jpg"))
	if err != nil || len(files) < n {
		t.Skipf("the data set has %d people, the test needs %d (%v)", len(files), n, err)
	}
	var list []string
	for i := range n {
		list = append(list, files[i*len(files)/n])
	}
	return list
}

var _ = sensors.Gray8
