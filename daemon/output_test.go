package main

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		rows   [][]string
		want   string
	}{
		{"empty", []string{"A", "B"}, nil, "A  B\n"},
		{"aligned", []string{"A", "B"}, [][]string{{"long", "1"}, {"x", "2"}}, "A     B\nlong  1\nx     2\n"},
		{"without an empty column", []string{"A", "B", "C"}, [][]string{{"1", "", "2"}}, "A  C\n1  2\n"},
		{"several lines", []string{"A", "B"}, [][]string{{"bad", "no\n  do this"}, {"good", "yes"}}, "A     B\nbad   no\n        do this\ngood  yes\n"},
		{"several lines in the first cell", []string{"A", "B"}, [][]string{{"1\n2", "x"}}, "A  B\n1  x\n2\n"},
		{"tabs", []string{"A", "B"}, [][]string{{"a\tb", "c"}}, "A    B\na b  c\n"},
		{"no space at the end", []string{"A", "B"}, [][]string{{"a", ""}, {"b", "c"}}, "A  B\na\nb  c\n"},
	} {
		var b strings.Builder
		table(&b, c.header, c.rows)
		if b.String() != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, b.String(), c.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/vigil/vigild.toml": "/etc/vigil/vigild.toml", "a b": "'a b'", "it's": `'it'\''s'`, "": "", "$x": "'$x'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
