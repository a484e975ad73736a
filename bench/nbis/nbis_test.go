package nbis

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/infer/eval"
	"vigil/infer/infertest"
)

// program is the built one; the test is skipped without it.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(infertest.Root(t), filepath.FromSlash(Program))
	if _, err := os.Stat(path); err != nil {
		t.Skip("NBIS is not built: run bench/nbis/setup")
	}
	return path
}

// TestFinger101 runs a finger and a stranger: every picture with itself is far over any other.
func TestFinger101(t *testing.T) {
	exe, dir := program(t), infertest.Data(t, "fingerprints", "fvc2002_DB1_B")
	p := &eval.Protocol{}
	for _, id := range []string{"101_1", "101_2", "102_1"} {
		p.Samples = append(p.Samples, eval.Sample{ID: id, Path: filepath.Join(dir, id+".png"), Subject: id[:3]})
	}
	blank := filepath.Join(t.TempDir(), "blank.png")
	paint(t, blank)
	p.Samples = append(p.Samples, eval.Sample{ID: "blank", Path: blank, Subject: "blank"})
	for _, c := range [][2]int32{{0, 0}, {0, 1}, {0, 2}, {3, 0}} {
		p.Comparisons = append(p.Comparisons, eval.Comparison{A: c[0], B: c[1]})
	}
	r, err := Extract(t.Context(), exe, p.Samples, 500)
	if err != nil {
		t.Fatal(err)
	}
	run, err := r.Run(t.Context(), "nbis", p)
	if err != nil {
		t.Fatal(err)
	}
	s := run.Scores
	if !(s[0] > 200 && s[0] > s[1] && s[1] > 40 && s[2] < 20 && s[3] == 0) {
		t.Errorf("itself %v, its finger %v, a stranger %v, a blank %v", s[0], s[1], s[2], s[3])
	}
	again, err := r.Run(t.Context(), "nbis", p)
	if err != nil || !slices.Equal(again.Scores, s) {
		t.Errorf("a second run: %v, %v", again, err)
	}
	if _, err := r.Run(t.Context(), "nbis", &eval.Protocol{}); err == nil {
		t.Error("a protocol over other samples was run")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.dir); !os.IsNotExist(err) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}

func TestExtractSaysWhatIsWrong(t *testing.T) {
	text := filepath.Join(t.TempDir(), "a.png")
	if err := os.WriteFile(text, []byte("no picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Extract(t.Context(), "/nowhere/nbis", []eval.Sample{{ID: "a", Path: text}}, 500); err == nil || !strings.Contains(err.Error(), "a.png") {
		t.Errorf("a text: %v", err)
	}
	paint(t, text)
	if _, err := Extract(t.Context(), "/nowhere/nbis", []eval.Sample{{ID: "a", Path: text}}, 500); err == nil || !strings.Contains(err.Error(), "/nowhere/nbis") {
		t.Errorf("no program: %v", err)
	}
	if _, err := Extract(t.Context(), program(t), []eval.Sample{{ID: "a", Path: text}}, 1); err == nil || !strings.Contains(err.Error(), "usage: nbis") {
		t.Errorf("1 ppi: %v", err)
	}
}

// paint makes a white picture.
func paint(t *testing.T, path string) {
	t.Helper()
	im := image.NewGray(image.Rect(0, 0, 200, 200))
	for i := range im.Pix {
		im.Pix[i] = 255
	}
	im.SetGray(3, 3, color.Gray{})
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, im); err != nil {
		t.Fatal(err)
	}
}
