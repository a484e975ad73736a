package eval

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// pictureExt are the extensions of the pictures in a tree, in lower case.
var pictureExt = []string{".jpg", ".jpeg", ".png"}

// Tree lists the pictures of a folder with a folder per subject, in the order of their names.
func Tree(dir string) ([]Sample, error) {
	people, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []Sample
	for _, person := range people {
		sub := filepath.Join(dir, person.Name())
		if info, err := os.Stat(sub); err != nil || !info.IsDir() || strings.HasPrefix(person.Name(), ".") {
			continue
		}
		files, err := os.ReadDir(sub)
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, f := range files {
			ext := strings.ToLower(filepath.Ext(f.Name()))
			if f.IsDir() || strings.HasPrefix(f.Name(), ".") || !slices.Contains(pictureExt, ext) {
				continue
			}
			id := path.Join(person.Name(), stem(f.Name()))
			if seen[id] {
				return nil, fmt.Errorf("%s: two pictures are called %s but for the extension: rename one", sub, id)
			}
			seen[id] = true
			out = append(out, Sample{ID: id, Path: filepath.Join(sub, f.Name()), Subject: person.Name()})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no pictures (.jpg, .jpeg, .png) in folders per subject", dir)
	}
	return out, nil
}

// AllPairs compares every picture of a tree with every other.
func AllPairs(dir string) (*Protocol, error) {
	samples, err := Tree(dir)
	if err != nil {
		return nil, err
	}
	p, err := (&Protocol{Samples: samples}).Every()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return p, p.check()
}
