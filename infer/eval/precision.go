package eval

import (
	"fmt"
	"slices"
	"strings"

	"vigil/infer"
)

// FP32 is the precision of a bundle's own files.
const FP32 = "fp32"

// AtPrecision is a copy of a manifest in which every stage that has a variant of that precision and dialect runs it, and
// no other can be chosen; FP32 keeps the stages' own files. The manifest that was passed stays as it is. A bundle without
// any such variant is an error that names what it has.
func AtPrecision(m *infer.Manifest, precision, dialect string) (*infer.Manifest, error) {
	c := *m
	c.Stages = slices.Clone(m.Stages)
	found := precision == FP32
	have := []string{FP32}
	for i := range c.Stages {
		s := &c.Stages[i]
		for _, v := range s.Variants {
			if v.Precision == precision && v.Dialect == dialect {
				s.File, found = v.File, true
			}
			have = append(have, v.Precision+" ("+v.Dialect+")")
		}
		s.Variants = nil
	}
	if !found {
		slices.Sort(have[1:])
		return nil, fmt.Errorf("bundle %s has no %s variant of the dialect %s: it has %s",
			m.ID, precision, dialect, strings.Join(slices.Compact(have), ", "))
	}
	return &c, nil
}
