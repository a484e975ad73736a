package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"vigil/lab/result"
)

// table prints rows as they come, of several machines at once, and counts.
type table struct {
	began         time.Time
	json, verbose bool

	mu           sync.Mutex
	rows, failed int
	troubles     []error
}

func newTable(o *options) *table { return &table{began: time.Now(), json: o.json, verbose: o.verbose} }

// progress is for whoever waits; it is no part of the table.
func (t *table) progress(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(os.Stderr, "lab: %6s  %s\n", time.Since(t.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// fail notes what went wrong beside the cases.
func (t *table) fail(err error) {
	t.progress("%v", err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.troubles = append(t.troubles, err)
}

// collect reads a guest's lines to its end. It returns an error if there is none, or if a case failed.
func (t *table) collect(lines *bufio.Scanner) error {
	var failed []string
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == result.Done {
			if len(failed) > 0 {
				return fmt.Errorf("failed: %s", strings.Join(failed, "; "))
			}
			return nil
		}
		text, ok := strings.CutPrefix(line, result.Prefix)
		var r result.Row
		if !ok || json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&r) != nil {
			if t.verbose {
				t.progress("| %s", line)
			}
			continue
		}
		if r.Now {
			t.progress("%s %s: %s", r.Suite, r.Case, r.Note)
			continue
		}
		if t.row(&r, text); !r.OK && !r.Skip {
			failed = append(failed, r.Suite+" "+r.Case)
		}
	}
	return errors.Join(errors.New("the guest ended before its last case"), lines.Err())
}

func (t *table) row(r *result.Row, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows++
	verdict := "FAIL"
	switch {
	case r.Skip:
		verdict = "skip"
	case r.OK:
		verdict = "ok"
	default:
		t.failed++
	}
	if t.json {
		fmt.Println(text)
		return
	}
	fmt.Printf("%-8s %-32s %-4s %6.1f s  %s\n", r.Suite, r.Case, verdict, r.Secs, r.Note)
}

// verdict is nil if every case passed and nothing else went wrong.
func (t *table) verdict() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.failed > 0:
		return errors.Join(fmt.Errorf("%d of %d cases failed", t.failed, t.rows), errors.Join(t.troubles...))
	case len(t.troubles) > 0:
		return errors.Join(t.troubles...)
	case t.rows == 0:
		return errors.New("no case ran")
	}
	fmt.Fprintf(os.Stderr, "lab: all %d cases passed\n", t.rows)
	return nil
}
