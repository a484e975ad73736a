package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Error is one thing that is wrong in a configuration file.
type Error struct {
	File string
	Line int    // from 1; 0 if it belongs to no line
	Key  string // dotted; sensors are numbered from 0: sensors[1].path
	Err  error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// ErrUnknownKey is the reason for a key that this version does not know.
var ErrUnknownKey = errors.New("unknown key: remove it or mend its spelling")

// locate turns a decoder's error into ours.
func locate(file string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var all []error
		for _, e := range strict.Errors {
			line, _ := e.Position()
			all = append(all, &Error{File: file, Line: line, Key: strings.Join(e.Key(), "."), Err: ErrUnknownKey})
		}
		return errors.Join(all...)
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return &Error{File: file, Line: line, Key: strings.Join(decode.Key(), "."), Err: errors.New(strings.TrimPrefix(decode.Error(), "toml: "))}
	}
	return &Error{File: file, Err: err}
}

// place is where a key stands and what kind of value it has.
type place struct {
	line int
	kind unstable.Kind
}

// index maps every dotted key of a document to its place. Tables of an array get their number: sensors[0].name.
type index map[string]place

func indexOf(data []byte) (index, error) {
	x := index{}
	counts := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table:
			key, line := dotted(&p, e)
			x[key], prefix = place{line, e.Kind}, key+"."
		case unstable.ArrayTable:
			key, line := dotted(&p, e)
			counts[key]++
			key = fmt.Sprintf("%s[%d]", key, counts[key]-1)
			x[key], prefix = place{line, e.Kind}, key+"."
		case unstable.KeyValue:
			x.add(&p, prefix, e)
		}
	}
	return x, p.Error()
}

// add notes a key and what is inside its value.
func (x index) add(p *unstable.Parser, prefix string, e *unstable.Node) {
	key, line := dotted(p, e)
	key = prefix + key
	x[key] = place{line, e.Value().Kind}
	x.inside(p, key, e.Value())
}

// inside notes the keys of inline tables, also of those in lists.
func (x index) inside(p *unstable.Parser, key string, v *unstable.Node) {
	if v.Kind != unstable.InlineTable && v.Kind != unstable.Array {
		return
	}
	n := 0
	for it := v.Children(); it.Next(); {
		switch c := it.Node(); {
		case c.Kind == unstable.KeyValue:
			x.add(p, key+".", c)
		case v.Kind == unstable.Array && c.Kind != unstable.Comment:
			x.inside(p, fmt.Sprintf("%s[%d]", key, n), c)
			n++
		}
	}
}

func dotted(p *unstable.Parser, e *unstable.Node) (key string, line int) {
	var parts []string
	for it := e.Key(); it.Next(); {
		if line == 0 {
			line = p.Shape(it.Node().Raw).Start.Line
		}
		parts = append(parts, string(it.Node().Data))
	}
	return strings.Join(parts, "."), line
}

// line is where a key stands. For one that was left out it is the line of its table, or of the first key in it, or of
// what the table is in; 1 if there is nothing.
func (x index) line(key string) int {
	for ; key != ""; key = key[:max(0, strings.LastIndexAny(key, ".["))] {
		if at, ok := x[key]; ok {
			return at.line
		}
		first := 0
		for k, at := range x {
			if (strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[")) && (first == 0 || at.line < first) {
				first = at.line
			}
		}
		if first > 0 {
			return first
		}
	}
	return 1
}
