package eval

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// Template is a vector of int8 values and the scale that makes it unit length.
type Template struct {
	Values []int8
	Scale  float32
}

// ErrNoFace is what an extractor answers for a picture without a usable face: a failure to acquire.
var ErrNoFace = errors.New("no face in the picture")

// Extractor makes the template of the person that a picture of the protocol is about. The result is the caller's.
type Extractor func(ctx context.Context, path string) (Template, error)

// Scorer compares two templates.
type Scorer func(a, b Template) float32

// Outcome is what a protocol gave.
type Outcome struct {
	Scores     Scores    // of the pairs, sorted
	Cross      Scores    // of every picture with every other, sorted
	PerPair    []float32 // in the order of the pairs
	Pictures   int       // templates made
	NoFace     []string  // pictures that failed to acquire
	Thresholds []float32 // chosen on the other half, per half of the folds
	Accuracy   float64   // with those thresholds, over all pairs
}

// Run makes a template of every picture that the pairs name under dir (LFW layout: Name/Name_0001.jpg), compares, and
// chooses the threshold on one half of the folds to judge the other, both ways. progress is called after each picture.
func Run(ctx context.Context, dir string, pairs []Pair, extract Extractor, score Scorer, progress func(done, total int)) (*Outcome, error) {
	if len(pairs) == 0 {
		return nil, errors.New("cannot evaluate without pairs")
	}
	out := &Outcome{}
	templates, err := out.templates(ctx, dir, pairs, extract, progress)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		a, okA := templates[picturePath(dir, p.A, p.IA)]
		b, okB := templates[picturePath(dir, p.B, p.IB)]
		v := NoScore
		if okA && okB {
			v = score(a, b)
		}
		out.PerPair = append(out.PerPair, v)
		out.Scores.add(p.Mated, v)
	}
	out.Scores.Sort()
	out.crossValidate(pairs)
	out.cross(templates, score)
	return out, nil
}

// cross compares every picture with every other, which gives far more comparisons than the pairs: enough to set a
// threshold at a false match rate of one in a million. People are told apart by their folder.
func (o *Outcome) cross(templates map[string]Template, score Scorer) {
	paths := slices.Sorted(maps.Keys(templates))
	for i, a := range paths {
		for _, b := range paths[:i] {
			o.Cross.add(filepath.Dir(a) == filepath.Dir(b), score(templates[a], templates[b]))
		}
	}
	o.Cross.Sort()
}

func picturePath(dir, name string, i int) string {
	return filepath.Join(dir, name, fmt.Sprintf("%s_%04d.jpg", name, i))
}

func (o *Outcome) templates(ctx context.Context, dir string, pairs []Pair, extract Extractor, progress func(done, total int)) (map[string]Template, error) {
	var paths []string
	seen := map[string]bool{}
	for _, p := range pairs {
		for _, path := range []string{picturePath(dir, p.A, p.IA), picturePath(dir, p.B, p.IB)} {
			if !seen[path] {
				seen[path] = true
				paths = append(paths, path)
			}
		}
	}
	templates := make(map[string]Template, len(paths))
	for i, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := extract(ctx, path)
		switch {
		case errors.Is(err, ErrNoFace):
			o.NoFace = append(o.NoFace, path)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		default:
			templates[path] = t
		}
		progress(i+1, len(paths))
	}
	o.Pictures = len(templates)
	return templates, nil
}

// crossValidate judges either half of the folds with the threshold that is best on the other. With one fold only, even
// and odd pairs are the halves.
func (o *Outcome) crossValidate(pairs []Pair) {
	folds := pairs[len(pairs)-1].Fold + 1
	half := func(p Pair) int {
		if folds == 1 {
			return p.position % 2
		}
		return p.Fold * 2 / folds
	}
	var split [2]Scores
	for i, p := range pairs {
		split[half(p)].add(p.Mated, o.PerPair[i])
	}
	right := 0.0
	for h := range split {
		split[h].Sort()
	}
	for h := range split {
		t := split[1-h].BestThreshold()
		o.Thresholds = append(o.Thresholds, t)
		right += split[h].Accuracy(t) * float64(len(split[h].Mated)+len(split[h].NonMated))
	}
	o.Accuracy = right / float64(len(pairs))
}
