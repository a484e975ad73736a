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

// lineIndex maps every dotted key of a document to its line. Tables of an array get their index: sensors[0].name.
func lineIndex(data []byte) (map[string]int, error) {
	lines := map[string]int{}
	counts := map[string]int{}
	var p unstable.Parser
	p.Reset(data)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		key, line := dotted(&p, e)
		switch e.Kind {
		case unstable.Table:
			prefix = key + "."
		case unstable.ArrayTable:
			key = fmt.Sprintf("%s[%d]", key, counts[key])
			counts[strings.TrimRight(key, "0123456789[]")]++
			prefix = key + "."
		case unstable.KeyValue:
			key = prefix + key
		default:
			continue
		}
		lines[key] = line
	}
	return lines, p.Error()
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
