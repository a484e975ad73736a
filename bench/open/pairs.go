package open

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/quant"
)

// Embeddings are unit vectors by the name of the picture, see PictureOf.
type Embeddings map[string][]float32

// PictureOf names picture i of a person, below the folder of the model's pictures.
func PictureOf(person string, i int) string {
	return filepath.Join(person, fmt.Sprintf("%s_%04d.jpg", person, i))
}

// AlignedPairs are the pairs of aligned pictures that the embedder is judged on, in folds.
func AlignedPairs() (_ []eval.Pair, err error) {
	file, err := os.Open(filepath.Join(Data(), "protocols", "lfw_aligned112_pairs_open.txt"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return eval.ParsePairs(file)
}

// Embed runs a model on every picture of the pairs, once each. progress hears how many are done; it may be nil.
func (m Model) Embed(ctx context.Context, rt infer.Runtime, model []byte, pairs []eval.Pair, progress func(done, of int)) (out Embeddings, err error) {
	e, err := rt.Load(ctx, model, []infer.Tensor{m.Input}, m.Outputs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	io, err := e.NewIO()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, io.Close()) }()
	names := picturesOf(pairs)
	out = Embeddings{}
	for i, name := range names {
		if err := m.Fill(ctx, filepath.Join(Data(), "faces", m.Pictures, name), io.Input(0)); err != nil {
			return nil, err
		}
		if err := io.Run(ctx); err != nil {
			return nil, err
		}
		out[name] = unit(io.Output(0))
		if progress != nil {
			progress(i+1, len(names))
		}
	}
	return out, nil
}

// picturesOf are the pictures of the pairs, each once, in order.
func picturesOf(pairs []eval.Pair) (names []string) {
	seen := map[string]bool{}
	for _, p := range pairs {
		for _, name := range []string{PictureOf(p.A, p.IA), PictureOf(p.B, p.IB)} {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

func unit(values []float32) []float32 {
	v := slices.Clone(values)
	length := float32(math.Sqrt(Dot(v, v)))
	for i := range v {
		v[i] /= length
	}
	return v
}

// Dot is the scalar product, in float64.
func Dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// Score compares the two pictures of a pair.
func (e Embeddings) Score(p eval.Pair) float64 {
	return Dot(e[PictureOf(p.A, p.IA)], e[PictureOf(p.B, p.IB)])
}

// Accuracy is the share of right answers with the threshold of the other half, without the mirrored crop.
func (e Embeddings) Accuracy(pairs []eval.Pair) float64 {
	var halves [2]eval.Scores
	folds := pairs[len(pairs)-1].Fold + 1
	for _, p := range pairs {
		h := &halves[p.Fold*2/folds]
		if p.Mated {
			h.Mated = append(h.Mated, e.Score(p))
		} else {
			h.NonMated = append(h.NonMated, e.Score(p))
		}
	}
	right := 0.0
	for i := range halves {
		halves[i].Sort()
	}
	for i := range halves {
		n := len(halves[i].Mated) + len(halves[i].NonMated)
		right += halves[i].Accuracy(halves[1-i].BestThreshold()) * float64(n)
	}
	return right / float64(len(pairs))
}

// Difference says how far others lie from these: the mean and the worst cosine, and the root mean square of the
// differences of the pairs' scores.
func (e Embeddings) Difference(other Embeddings, pairs []eval.Pair) (mean, worst, rms float64) {
	worst = 1
	for name, v := range other {
		c := Dot(v, e[name])
		mean += c / float64(len(other))
		worst = min(worst, c)
	}
	for _, p := range pairs {
		d := other.Score(p) - e.Score(p)
		rms += d * d / float64(len(pairs))
	}
	return mean, worst, math.Sqrt(rms)
}

// Race times two files of a model on one picture, in turns.
func (m Model) Race(ctx context.Context, rt infer.Runtime, files [2][]byte, runs int) (r *quant.Race, err error) {
	var engines [2]infer.Engine
	for i, data := range files {
		if engines[i], err = rt.Load(ctx, data, []infer.Tensor{m.Input}, m.Outputs); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, engines[i].Close()) }()
	}
	s, err := m.Take(1, 0)
	if err != nil {
		return nil, err
	}
	var failed error
	r, err = quant.RaceEngines(ctx, engines, func(in []float32) { failed = errors.Join(failed, s.Fill(ctx, 0, in)) }, runs)
	return r, errors.Join(err, failed)
}
