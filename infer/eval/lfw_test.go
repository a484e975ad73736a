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
	p, err := eval.FromPairs(infertest.Data(t, "faces", "lfw"), pairs)
	if err != nil {
		t.Fatal(err)
	}
	run, err := eval.Collect(t.Context(), "fp32", p, eval.Faces(infertest.Pipeline(t), decode), func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	v, err := eval.Verify(p, []*eval.Run{run}, eval.Options{Seed: 1, Replicates: 200})
	if err != nil {
		t.Fatal(err)
	}
	r := v.Runs[0]
	t.Logf("%d pairs, %d pictures, %d without a face: accuracy %.4f (%.4f to %.4f), EER %.4f, thresholds %v", len(pairs), v.Samples, len(r.Failures),
		r.Accuracy.Value, *r.Accuracy.Low, *r.Accuracy.High, r.EER.Value, r.ChosenAt)
	if v.Mated != 150 || v.NonMated != 150 || r.Accuracy.Value < 0.97 || len(r.Failures) > 2 {
		t.Errorf("accuracy %v of %d and %d pairs, %d without a face", r.Accuracy.Value, v.Mated, v.NonMated, len(r.Failures))
	}
	if pool.InUse() != 0 {
		t.Error("a frame was lost")
	}
}
