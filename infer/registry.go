package infer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Registry is a table of pre- or post-processing steps by name. A pipeline has one per place in its stages; T is what a
// step does there. It is filled once, in a variable, and only read.
type Registry[T any] map[string]func(s *Step) (T, error)

// Make makes the step that a stage names. what says which place it is, for errors: "pre of stage detect". A missing step
// and an unknown name are errors that list the names there are; parameters are read strictly by the maker.
func (r Registry[T]) Make(what string, s *Step) (made T, err error) {
	if s == nil {
		return made, fmt.Errorf("%s is missing: there are %s", what, r.names())
	}
	maker, ok := r[s.Name]
	if !ok {
		return made, fmt.Errorf("%s: unknown name %q: there are %s", what, s.Name, r.names())
	}
	if made, err = maker(s); err != nil {
		return made, fmt.Errorf("%s %q: %w", what, s.Name, err)
	}
	return made, nil
}

func (r Registry[T]) names() string {
	return `"` + strings.Join(slices.Sorted(maps.Keys(r)), `", "`) + `"`
}
