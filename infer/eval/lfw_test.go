package eval_test

import (
	"context"
	"os"
	"testing"

	"vigil/infer/eval"
	"vigil/infer/infertest"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// TestLFW judges the whole way from picture to score on 300 pairs of the first fold of LFW's protocol.
// The accuracy measured is 0.9933; the floor leaves room for seven wrong answers more.
func TestLFW(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("600 pictures take half a minute: not with -short or -race")
	}
	file, err := os.Open(infertest.Data(t, "protocols", "lfw_pairs_open.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all, err := eval.ParsePairs(file)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []eval.Pair // 150 mated and 150 non-mated ones, the two halves alternating
	for _, p := range all[:600] {
		if p.Fold == 0 && len(pairs) < 300 && (p.Mated && len(pairs) < 150 || !p.Mated) {
			pairs = append(pairs, p)
		}
	}
	pool := sensors.NewPool(1)
	decode := func(ctx context.Context, path string) (*sensors.Frame, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return picture.Decode(ctx, pool, data)
	}
	extract := eval.Faces(infertest.Pipeline(t), decode)
	out, err := eval.Run(t.Context(), infertest.Data(t, "faces", "lfw"), pairs, extract, eval.Cosine, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	eer, _ := out.Scores.EER()
	t.Logf("%d pairs, %d pictures, %d without a face: accuracy %.4f, EER %.4f, thresholds %v", len(pairs), out.Pictures, len(out.NoFace), out.Accuracy, eer, out.Thresholds)
	if len(out.Scores.Mated) != 150 || len(out.Scores.NonMated) != 150 || out.Accuracy < 0.97 || len(out.NoFace) > 2 {
		t.Errorf("accuracy %v of %d and %d pairs, %d without a face", out.Accuracy, len(out.Scores.Mated), len(out.Scores.NonMated), len(out.NoFace))
	}
	if pool.InUse() != 0 {
		t.Error("a frame was lost")
	}
}
