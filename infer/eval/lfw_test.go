package eval_test

import (
	"context"
	"os"
	"testing"

	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/kernels"
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
	x := extractor{pipe: infertest.Pipeline(t), pool: sensors.NewPool(1)}
	x.result = x.pipe.NewResult()
	out, err := eval.Run(t.Context(), infertest.Data(t, "faces", "lfw"), pairs, x.extract, score, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	eer, _ := out.Scores.EER()
	t.Logf("%d pairs, %d pictures, %d without a face: accuracy %.4f, EER %.4f, thresholds %v", len(pairs), out.Pictures, len(out.NoFace), out.Accuracy, eer, out.Thresholds)
	if len(out.Scores.Mated) != 150 || len(out.Scores.NonMated) != 150 || out.Accuracy < 0.97 || len(out.NoFace) > 2 {
		t.Errorf("accuracy %v of %d and %d pairs, %d without a face", out.Accuracy, len(out.Scores.Mated), len(out.Scores.NonMated), len(out.NoFace))
	}
	if x.pool.InUse() != 0 {
		t.Error("a frame was lost")
	}
}

type extractor struct {
	pipe   *face.Pipeline
	pool   *sensors.Pool
	result *face.Result
}

// extract takes the face nearest to the middle of the picture.
func (x *extractor) extract(ctx context.Context, path string) (eval.Template, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return eval.Template{}, err
	}
	f, err := picture.Decode(ctx, x.pool, data)
	if err != nil {
		return eval.Template{}, err
	}
	defer f.Release()
	if err := x.pipe.Process(ctx, f, x.result); err != nil {
		return eval.Template{}, err
	}
	best, least := -1, float32(0)
	for i := range x.result.Faces {
		b := x.result.Faces[i].Box
		dx, dy := b[0]+b[2]/2-float32(f.Width)/2, b[1]+b[3]/2-float32(f.Height)/2
		if d := dx*dx + dy*dy; best < 0 || d < least {
			best, least = i, d
		}
	}
	if best < 0 {
		return eval.Template{}, eval.ErrNoFace
	}
	fc := x.result.Faces[best]
	return eval.Template{Values: append([]int8(nil), fc.Values...), Scale: fc.Scale}, nil
}

func score(a, b eval.Template) float32 {
	var d [1]int32
	kernels.DotRows(d[:], a.Values, len(a.Values), b.Values)
	return float32(d[0]) * a.Scale * b.Scale
}
