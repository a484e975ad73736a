package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/preset"
)

// presetList is a line of help for every preset.
func presetList() string {
	var b strings.Builder
	for _, name := range preset.Names() {
		if m, err := preset.Load(name); err == nil {
			fmt.Fprintf(&b, "  %-22s %s\n", name, m.Title)
		}
	}
	return b.String()
}

func (a *app) inspectCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "inspect (ID | PATH) [--preset NAME]",
		Short: "Show everything about a bundle: stages, tensors, variants, thresholds, licence, files",
		Long: "Show everything about a bundle but its weights. PATH is a folder or a tar file: then no device is\n" +
			"needed, and the files are checked against the manifest. Anything else is the ID of an imported\n" +
			"bundle. --preset shows a built-in manifest, with PATH against the files there.",
		Args: func(c *cobra.Command, list []string) error {
			if len(list) == 0 && name != "" {
				return nil
			}
			return exactly("an ID or a PATH")(c, list)
		},
		RunE: func(c *cobra.Command, list []string) error {
			if len(list) == 0 {
				return a.inspect(core.InspectBundle("", name))
			}
			if _, err := os.Stat(list[0]); err == nil || name != "" || strings.Contains(list[0], "/") {
				return a.inspect(core.InspectBundle(list[0], name))
			}
			return a.with(c.Context(), func(cl *api.Client) error { return a.inspect(cl.Model(c.Context(), list[0])) })
		},
	}
	c.Flags().StringVar(&name, "preset", "", "show this built-in manifest")
	return c
}

// inspect prints a bundle; one with a problem ends with the exit code for that.
func (a *app) inspect(d core.ModelDetail, err error) error {
	if err != nil {
		return err
	}
	if err := a.print(d, func(w io.Writer) { printDetail(w, d) }); err != nil {
		return err
	}
	bad := d.Problem != ""
	for _, f := range d.Files {
		bad = bad || f.Problem != ""
	}
	if bad {
		return &codeError{code: exitProblem}
	}
	return nil
}

func printDetail(w io.Writer, d core.ModelDetail) {
	printModel(w, d.ModelInfo)
	for _, op := range []string{"verify", "identify", "duplicate"} {
		t := d.Manifest.Thresholds[op]
		claim := "no rate is claimed"
		if t.FMR < 1 {
			claim = fmt.Sprintf("FMR %g", t.FMR)
		}
		fmt.Fprintf(w, "  %-12s %.3f, %s: %s\n", op, t.Score, claim, t.DataSet)
	}
	for i := range d.Manifest.Stages {
		printStage(w, &d.Manifest.Stages[i])
	}
	fmt.Fprintln(w)
	printFiles(w, d.Manifest, d.Files)
}

func printStage(w io.Writer, s *infer.Stage) {
	fmt.Fprintf(w, "\nstage %s", s.Name)
	if s.Weight != 0 {
		fmt.Fprintf(w, ", of kind %s with weight %g", s.KindOf(), s.Weight)
	}
	fmt.Fprintf(w, ", at most %g ms\n", s.DeadlineMS)
	if s.File != "" {
		fmt.Fprintf(w, "  model        %s\n", s.File)
	}
	for _, t := range s.Inputs {
		fmt.Fprintf(w, "  input        %v %s\n", t, t.Layout)
	}
	for _, t := range s.Outputs {
		fmt.Fprintf(w, "  output       %v\n", t)
	}
	printStep(w, "before", s.Pre)
	printStep(w, "after", s.Post)
	for _, v := range s.Variants {
		how := "calibrated with " + v.Calibration
		if v.Dialect == infer.DialectOps {
			how = "with our operators " + strings.Join(v.Operators, ", ")
		}
		fmt.Fprintf(w, "  variant      %s in dialect %s: %s; %s\n", v.Precision, v.Dialect, v.File, how)
		fmt.Fprintf(w, "    gate       %v; %s, %.2f ms against %.2f ms in float on %s\n", v.Gate, v.Gate.DataSet,
			v.Gate.Seconds*1e3, v.Gate.FP32Seconds*1e3, v.Gate.Machine)
	}
}

func printStep(w io.Writer, when string, s *infer.Step) {
	if s != nil {
		fmt.Fprintf(w, "  %-12s %s %s\n", when, s.Name, strings.Join(strings.Fields(string(s.Params)), " "))
	}
}

// printFiles lists the files; without any that was looked at, what the manifest wants.
func printFiles(w io.Writer, m *infer.Manifest, list []core.FileState) {
	if len(list) == 0 {
		for _, name := range m.FileNames() {
			list = append(list, core.FileState{Name: name, Bytes: m.Files[name].Bytes})
		}
	}
	var rows [][]string
	for _, f := range list {
		sum, size := m.Files[f.Name].SHA256, bytesText(f.Bytes)
		if sum == "" {
			sum, size = "left open: pinned when it is imported", "-"
		}
		rows = append(rows, []string{f.Name, size, sum, f.Problem})
	}
	table(w, []string{"FILE", "SIZE", "SHA-256", "PROBLEM"}, rows)
}
