package main

import (
	"bytes"
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
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes aligned columns. A cell of several lines makes its row as high; a column without any value is left out.
func table(w io.Writer, header []string, rows [][]string) {
	keep := make([]bool, len(header))
	for i := range keep {
		keep[i] = len(rows) == 0
	}
	for _, r := range rows {
		for i, cell := range r {
			keep[i] = keep[i] || cell != ""
		}
	}
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	tableRow(t, header, keep)
	for _, r := range rows {
		tableRow(t, r, keep)
	}
	t.Flush()
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

func tableRow(w io.Writer, cells []string, keep []bool) {
	for line, more := 0, true; more; line++ {
		more = false
		var parts []string
		for i, c := range cells {
			if !keep[i] {
				continue
			}
			lines := strings.Split(strings.ReplaceAll(c, "\t", " "), "\n")
			text := ""
			if line < len(lines) {
				text = lines[line]
			}
			more = more || line+1 < len(lines)
			parts = append(parts, text)
		}
		fmt.Fprintln(w, strings.Join(parts, "\t"))
	}
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
