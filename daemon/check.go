package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/store"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify the whole store: structure, every envelope, the audit chain",
		Long: "Read everything in the store and verify it: pages, keys, envelopes, and the audit chain up to its\n" +
			"sealed head. Nothing is changed. The exit code is 4 if there are problems.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			report, err := a.check(c.Context())
			if err != nil {
				return err
			}
			if report.Problems == nil {
				report.Problems = []store.Problem{} // a list in JSON, too
			}
			err = a.print(report, func(w io.Writer) { printReport(w, report) })
			if err == nil && !report.OK() {
				return &codeError{code: exitProblem}
			}
			return err
		},
	}
}

// check asks the running daemon, or reads the file itself; it needs no model and no runtime.
func (a *app) check(ctx context.Context) (store.Report, error) {
	cfg, err := a.load()
	if err != nil {
		return store.Report{}, err
	}
	cl, _, err := reach(ctx, cfg)
	if err == nil {
		defer cl.Close()
		return cl.Check(ctx)
	}
	if !errors.Is(err, api.ErrNoDaemon) {
		return store.Report{}, err
	}
	d, err := core.OpenDevice(ctx, cfg)
	if err != nil {
		return store.Report{}, err
	}
	report, err := store.Check(core.StorePath(cfg.StateDir), d.Keyring())
	return report, errors.Join(err, d.Close())
}

func printReport(w io.Writer, r store.Report) {
	fmt.Fprintf(w, "store     %s (%s, schema %d)\n", r.Path, bytesText(r.FileBytes), r.Schema)
	fmt.Fprintf(w, "subjects  %d with %d templates\n", r.Subjects, r.Templates)
	if r.OK() {
		fmt.Fprintf(w, "audit     %d events, chain and head verified\nresult    every page, key and envelope is good\n", r.Audit)
		return
	}
	fmt.Fprintf(w, "audit     %d events could be read\nresult    PROBLEMS: %d\n\n", r.Audit, r.ProblemCount)
	var rows [][]string
	for _, p := range r.Problems {
		rows = append(rows, []string{orFile(strings.Trim(p.Bucket+"/"+p.Key, "/")), p.Problem, p.Remedy})
	}
	table(w, []string{"WHERE", "PROBLEM", "REMEDY"}, rows)
	if n := r.ProblemCount - len(r.Problems); n > 0 {
		fmt.Fprintf(w, "and %d more\n", n)
	}
}

// orFile names the file as a whole, where a problem belongs to no part of it.
func orFile(where string) string {
	if where == "" {
		return "the file"
	}
	return where
}
