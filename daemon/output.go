package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// print writes v as JSON with --json, else calls text.
func (a *app) print(v any, text func(w io.Writer)) error {
	if !a.json {
		text(a.env.Stdout)
		return nil
	}
	e := json.NewEncoder(a.env.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes aligned columns.
func table(w io.Writer, header []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	t.Flush()
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	case n >= 10<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// progress shows how far a long job is, on one line of a terminal, or a line every few seconds elsewhere.
type progress struct {
	w     io.Writer
	tty   bool
	what  string
	last  time.Time
	width int
}

// Intervals between two updates, on a terminal and elsewhere.
const (
	progressTTY  = 100 * time.Millisecond
	progressFile = 5 * time.Second
)

func newProgress(w io.Writer, what string) *progress {
	return &progress{w: w, tty: terminal(w), what: what, last: time.Now()}
}

func (p *progress) update(done, total int) {
	every := progressFile
	if p.tty {
		every = progressTTY
	}
	if time.Since(p.last) < every && done < total || total == 0 {
		return
	}
	p.last = time.Now()
	line := fmt.Sprintf("%s %d of %d (%d %%)", p.what, done, total, done*100/total)
	if !p.tty {
		fmt.Fprintln(p.w, line)
		return
	}
	pad := max(0, p.width-utf8.RuneCountInString(line))
	p.width = utf8.RuneCountInString(line)
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", pad))
	if done == total {
		fmt.Fprintln(p.w)
	}
}
