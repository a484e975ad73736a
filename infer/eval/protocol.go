package eval

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Sample is one picture of a protocol.
type Sample struct {
	ID      string // path below the folder of pictures, with slashes, without the extension
	Path    string // of the file
	Subject string // who it is of: a person, or a finger
}

// Comparison is one pair of samples, by their indices.
type Comparison struct {
	A, B  int32
	Fold  int16 // from 0; used by LFW's protocol only
	Mated bool  // of one subject
}

// Protocol is a set of samples and the comparisons between them.
type Protocol struct {
	Name        string // short, for file names: "pairs", "fvc", "allpairs"
	Title       string // for people
	Samples     []Sample
	Comparisons []Comparison
	Folds       int // 0 where there are none
}

// maxComparisons bounds a protocol: scores and indices of this many take about 2 GiB.
const maxComparisons = 50_000_000

// add appends the comparison of two samples; the subjects say whether it is mated.
func (p *Protocol) add(a, b int) {
	mated := p.Samples[a].Subject == p.Samples[b].Subject
	p.Comparisons = append(p.Comparisons, Comparison{A: int32(a), B: int32(b), Mated: mated})
}

// Counts are the numbers of mated and non-mated comparisons.
func (p *Protocol) Counts() (mated, nonMated int) {
	for i := range p.Comparisons {
		if p.Comparisons[i].Mated {
			mated++
		}
	}
	return mated, len(p.Comparisons) - mated
}

// subjects numbers the subjects in the order of their names, and says which each sample is of.
func subjects(samples []Sample) (names []string, of []int32) {
	set := map[string]bool{}
	for i := range samples {
		set[samples[i].Subject] = true
	}
	names = slices.Sorted(maps.Keys(set))
	at := make(map[string]int32, len(names))
	for i, n := range names {
		at[n] = int32(i)
	}
	of = make([]int32, len(samples))
	for i := range samples {
		of[i] = at[samples[i].Subject]
	}
	return names, of
}

// check refuses a protocol that no rate can come from.
func (p *Protocol) check() error {
	mated, non := p.Counts()
	switch {
	case len(p.Comparisons) == 0:
		return errors.New("the protocol has no comparisons")
	case mated == 0 || non == 0:
		return fmt.Errorf("the protocol has %d mated and %d non-mated comparisons: rates need both", mated, non)
	}
	return nil
}

// Every compares each sample of the protocol with every other once, which gives far more comparisons than most protocols
// list: enough to set a threshold at a low false match rate.
func (p *Protocol) Every() (*Protocol, error) {
	n := len(p.Samples)
	if n*(n-1)/2 > maxComparisons {
		return nil, fmt.Errorf("%d samples make %d comparisons; the limit is %d: take fewer", n, n*(n-1)/2, maxComparisons)
	}
	all := &Protocol{Name: "allpairs", Title: "every sample with every other", Samples: p.Samples}
	all.Comparisons = make([]Comparison, 0, n*(n-1)/2)
	for i := range n {
		for j := range i {
			all.add(j, i)
		}
	}
	return all, nil
}

// FromPairs is LFW's protocol over a folder with a folder per person (NAME/NAME_0001.jpg).
func FromPairs(dir string, pairs []Pair) (*Protocol, error) {
	if len(pairs) == 0 {
		return nil, errors.New("cannot evaluate without pairs")
	}
	p := &Protocol{Name: "pairs", Title: fmt.Sprintf("%d pairs (LFW layout)", len(pairs)), Folds: pairs[len(pairs)-1].Fold + 1}
	if p.Folds > 1<<15-1 {
		return nil, fmt.Errorf("%d folds: at most %d", p.Folds, 1<<15-1)
	}
	at := map[string]int{}
	sample := func(name string, i int) int {
		id := path.Join(name, fmt.Sprintf("%s_%04d", name, i))
		k, ok := at[id]
		if !ok {
			k = len(p.Samples)
			at[id] = k
			p.Samples = append(p.Samples, Sample{ID: id, Path: filepath.Join(dir, filepath.FromSlash(id)) + ".jpg", Subject: name})
		}
		return k
	}
	for _, x := range pairs {
		c := Comparison{A: int32(sample(x.A, x.IA)), B: int32(sample(x.B, x.IB)), Mated: x.Mated, Fold: int16(x.Fold)}
		p.Comparisons = append(p.Comparisons, c)
	}
	return p, nil
}

// trimExt drops the extension of a file name that is one of a sample.
func trimExt(id string) string {
	switch ext := path.Ext(id); strings.ToLower(ext) {
	case ".jpg", ".jpeg", ".png", ".pgm", ".bmp", ".tif", ".tiff", ".xyt", ".iso":
		return strings.TrimSuffix(id, ext)
	}
	return id
}
