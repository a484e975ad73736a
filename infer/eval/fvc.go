package eval

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Impostors says which samples of different fingers the FVC protocol compares.
type Impostors string

const (
	// FirstImpressions compares the first impressions of all fingers with each other, as the FVC do.
	FirstImpressions Impostors = "first"
	// EveryImpression compares every impression with every impression of every other finger: more comparisons, which
	// are less independent.
	EveryImpression Impostors = "all"
)

var fvcName = regexp.MustCompile(`^([0-9]{1,18})_([0-9]{1,4})\.[A-Za-z0-9]{1,8}$`)

// impression is one file of an FVC folder.
type impression struct {
	finger, number int
	file           string
}

// FVC is the protocol of the Fingerprint Verification Competitions over a folder of files F_I.EXT: mated are all pairs of
// impressions of a finger, each once (no comparison is done both ways); non-mated as impostors says. Source: Maio et al.,
// "FVC2002: Second Fingerprint Verification Competition", ICPR 2002. A finger is a subject. Files .json
// and .ridges.png, which `vigild synth` writes beside its pictures, are passed over.
func FVC(dir string, impostors Impostors) (*Protocol, error) {
	if impostors != FirstImpressions && impostors != EveryImpression {
		return nil, fmt.Errorf("impostors %q: there are %q and %q", impostors, FirstImpressions, EveryImpression)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !isTruth(e.Name()) {
			names = append(names, e.Name())
		}
	}
	list, err := fvcImpressions(names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	p := &Protocol{Name: "fvc", Title: "FVC, first impressions as impostors"}
	if impostors == EveryImpression {
		p.Name, p.Title = "fvc-all", "FVC, every impression as impostor"
	}
	first := make([]bool, len(list)) // of its finger
	for i, x := range list {
		first[i] = i == 0 || list[i-1].finger != x.finger
		p.Samples = append(p.Samples, Sample{ID: stem(x.file), Path: filepath.Join(dir, x.file), Subject: strconv.Itoa(x.finger)})
	}
	for i := range list {
		for j := range i {
			if list[i].finger == list[j].finger || impostors == EveryImpression || first[i] && first[j] {
				p.add(j, i)
			}
		}
	}
	if len(p.Comparisons) > maxComparisons {
		return nil, fmt.Errorf("%s: %d comparisons, the limit is %d: take fewer fingers", dir, len(p.Comparisons), maxComparisons)
	}
	return p, p.check()
}

// isTruth says that a file is what `vigild synth` writes beside its pictures.
func isTruth(name string) bool {
	return strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".ridges.png")
}

// stem drops whatever extension a file name has.
func stem(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) }

// fvcImpressions reads the names of an FVC folder, in the order of finger and impression. Two files of one impression and
// names of any other form are refused.
func fvcImpressions(names []string) ([]impression, error) {
	var list []impression
	for _, name := range names {
		m := fvcName.FindStringSubmatch(name)
		if m == nil {
			return nil, fmt.Errorf("%q is not a file F_I.EXT (finger, impression): move it elsewhere", name)
		}
		finger, _ := strconv.Atoi(m[1]) // digits only, and few
		number, _ := strconv.Atoi(m[2])
		list = append(list, impression{finger, number, name})
	}
	slices.SortFunc(list, func(a, b impression) int {
		return cmp.Or(cmp.Compare(a.finger, b.finger), cmp.Compare(a.number, b.number), cmp.Compare(a.file, b.file))
	})
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; a.finger == b.finger && a.number == b.number {
			return nil, fmt.Errorf("%q and %q are one impression: keep one of them", a.file, b.file)
		}
	}
	return list, nil
}
