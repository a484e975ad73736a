//go:build !appliance

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/store"
)

// demoReport is what the demo shows.
type demoReport struct {
	Right     bool           `json:"right"` // everybody found, nobody mistaken, everything published and verified
	Wrong     []string       `json:"wrong,omitempty"`
	Device    string         `json:"device"`
	TPM       string         `json:"tpm"`
	Runtime   string         `json:"runtime"`
	People    []*person      `json:"people"`
	Latency   []core.Latency `json:"latency"`
	AtRest    []atRest       `json:"at_rest"`
	Decisions int            `json:"decisions"` // made by the device
	Published int            `json:"published"` // of these, received and decrypted by the management side
	Commands  uint64         `json:"commands_refused"`
	Refused   []string       `json:"not_enrolled,omitempty"`
	Check     store.Report   `json:"check"`
	Seconds   float64        `json:"seconds"`
	Dir       string         `json:"dir"`

	socket string
}

// atRest is how much of what lies on the disk.
type atRest struct {
	What  string `json:"what"`
	Bytes int64  `json:"bytes"`
}

// report waits until the management side has everything, verifies the store and sums up.
func (d *demo) report(ctx context.Context, took time.Duration) (*demoReport, error) {
	r := &demoReport{Device: d.ap.DeviceID(), Dir: d.dir, Latency: d.ap.Stats().Latencies(), socket: d.cfg.TPM.Address}
	for _, l := range r.Latency {
		if l.Stage == core.StageCommit {
			r.Decisions = int(l.Count)
		}
	}
	if err := d.manager.Await(ctx, func() bool { return d.published() >= r.Decisions }); err != nil {
		return nil, fmt.Errorf("the management side has %d of %d decisions: %w", d.published(), r.Decisions, err)
	}
	refused := func() bool {
		f := d.ap.Status().Fleet
		r.Commands = 0
		for _, n := range f.Refused {
			r.Commands += n
		}
		return r.Commands > 0
	}
	for !refused() && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	r.Published, r.Refused = d.published(), d.cast.refused
	s := d.ap.Status()
	r.TPM, r.Runtime = s.TPM, s.Runtime
	for _, n := range s.Notes {
		r.TPM += " (" + n + ")"
	}
	r.People = d.cast.everybody()
	var err error
	if r.Check, err = d.ap.Check(); err != nil {
		return nil, err
	}
	if r.AtRest, err = d.sizes(); err != nil {
		return nil, err
	}
	r.Seconds = took.Seconds()
	r.judge()
	return r, nil
}

// published counts the decisions that reached the management side, each id once.
func (d *demo) published() int {
	ids := map[string]bool{}
	for _, e := range d.manager.Events() {
		var dec core.Decision
		if e.Class == "decision" && json.Unmarshal(e.Body, &dec) == nil {
			ids[dec.ID] = true
		}
	}
	return len(ids)
}

// judge says what is wrong, if anything.
func (r *demoReport) judge() {
	blame := func(ok bool, format string, args ...any) {
		if !ok {
			r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
		}
	}
	for _, p := range r.People {
		blame(p.Wrong == 0, "%s was taken for somebody else %d times", p.Name, p.Wrong)
		blame(p.Strays == 0, "%s made %d events too many", p.Name, p.Strays)
		if p.Enrolled {
			blame(p.Found > 0, "%s was not found", p.Name)
		} else {
			blame(p.Found == 0, "%s was found without being enrolled", p.Name)
		}
	}
	blame(r.Published == r.Decisions, "%d of %d decisions reached the management side", r.Published, r.Decisions)
	blame(r.Commands > 0, "an unsigned command was not refused")
	blame(r.Check.Err() == nil, "the store check found: %v", r.Check.Err())
	r.Right = len(r.Wrong) == 0
}

// sizes measures the state folder.
func (d *demo) sizes() ([]atRest, error) {
	sum := map[string]int64{}
	err := filepath.WalkDir(d.stateDir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(d.stateDir(), path)
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(rel, string(filepath.Separator))
		sum[top] += info.Size()
		return nil
	})
	var list []atRest
	for _, w := range []struct{ dir, what string }{
		{"vigil.db", "people, audit log and outbox, encrypted"}, {"models", "models, sealed"}, {"identity", "wrapped keys"},
	} {
		list = append(list, atRest{w.what, sum[w.dir]})
	}
	return list, err
}

func (r *demoReport) print(w io.Writer) {
	fmt.Fprintf(w, "\ndevice %s   TPM %s   %s\n\n", r.Device, r.TPM, r.Runtime)
	var rows [][]string
	var pictures, found, strangers, shown, in int
	for _, p := range r.People {
		role, verdict := "stranger", "not recognised"
		if p.Enrolled {
			role, verdict = "enrolled", fmt.Sprintf("found in %d of %d", p.Found, p.Shown)
			pictures, found = pictures+p.Shown, found+p.Found
		} else {
			strangers, shown, in = strangers+1, shown+p.Shown, in+p.Found+p.Wrong
		}
		if p.Wrong > 0 {
			verdict += fmt.Sprintf(", WRONG %d times", p.Wrong)
		}
		rows = append(rows, []string{p.Name, role, dashZero(p.Samples), fmt.Sprint(p.Shown), verdict})
	}
	table(w, []string{"PERSON", "ROLE", "SAMPLES", "SHOWN", "RESULT"}, rows)
	fmt.Fprintf(w, "\n%d people enrolled, recognised in %d of %d pictures, visits and touches; %d strangers in %d, %s\n",
		len(r.People)-strangers, found, pictures, strangers, shown, letIn(in))
	if len(r.Refused) > 0 {
		fmt.Fprintf(w, "%d more were refused at enrolment for want of %d clear pictures\n", len(r.Refused), config.Default().Policy.EnrollSamples)
	}
	fmt.Fprintf(w, "%d decisions, %d received and decrypted by the management side; %d unsigned command refused\n\n", r.Decisions, r.Published, r.Commands)
	printLatencies(w, r.Latency)
	fmt.Fprintln(w)
	for _, a := range r.AtRest {
		fmt.Fprintf(w, "at rest  %9s  %s\n", bytesText(a.Bytes), a.What)
	}
	fmt.Fprintf(w, "check    %d subjects, %d templates, %d audit events: %d problems\n", r.Check.Subjects, r.Check.Templates, r.Check.Audit, len(r.Check.Problems))
	if r.Right {
		fmt.Fprintf(w, "\nRIGHT: every enrolled person was found, no stranger was (%.0f s)\n", r.Seconds)
	} else {
		fmt.Fprintf(w, "\nWRONG:\n  %s\n", strings.Join(r.Wrong, "\n  "))
	}
	sock := strings.TrimPrefix(r.socket, "unix:")
	fmt.Fprintf(w, `
next, with the device in %s (start its TPM again first):
  swtpm socket --tpm2 --tpmstate dir=%s/swtpm/state --ctrl type=unixio,path=%s.ctrl --server type=unixio,path=%s --flags not-need-init,startup-clear --daemon
  vigild --config %s/vigild.toml subjects
  vigild --config %s/vigild.toml identify PICTURE.jpg
  vigild --config %s/vigild.toml check
  vigild --config %s/vigild.toml doctor
`, r.Dir, r.Dir, sock, sock, r.Dir, r.Dir, r.Dir, r.Dir)
}

// letIn says how many strangers were taken for somebody.
func letIn(n int) string {
	if n == 0 {
		return "none let in"
	}
	return fmt.Sprintf("LET IN %d times", n)
}

func dashZero(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
