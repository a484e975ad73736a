package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
)

func (a *app) buildCommand() *cobra.Command {
	q := api.BuildRequest{}
	c := &cobra.Command{
		Use:   "build BUNDLE",
		Short: "Build the engines of a bundle for a runtime, and keep them sealed",
		Long: "Build an engine for each stage of an imported bundle: of its INT8 file for TensorRT where the bundle has\n" +
			"one (`vigild models quantize` makes it), else of its float file, with the reason. A build takes from a\n" +
			"second to many minutes, in a process of its own with limits of time and memory; the running daemon\n" +
			"goes on meanwhile. Engines are kept sealed under the device's keys and found again, until TensorRT, CUDA,\n" +
			"the driver, the device, the shapes or the file change. BUNDLE is an id of `vigild models list`.\n" +
			"runtime.tensorrt in the configuration, or VIGIL_TRT_LIB, names the folder of TensorRT's libraries where the\n" +
			"system does not find them.\n" +
			"Exit code 4: a stage has no engine.",
		Args: exactly("a BUNDLE"),
		RunE: func(c *cobra.Command, ids []string) error {
			if q.Runtime != core.RuntimeTensorRT {
				return usageError(c, "--runtime %q: %s", q.Runtime, core.RuntimeTensorRT)
			}
			p := &buildPrinter{w: a.env.Stderr, overwrite: terminal(a.env.Stderr)}
			return a.with(c.Context(), func(cl *api.Client) error {
				r, err := cl.BuildModel(c.Context(), ids[0], q, p.step)
				p.end()
				if err != nil {
					return err
				}
				if err := a.print(r, func(w io.Writer) { printBuild(w, r) }); err != nil {
					return err
				}
				if !r.Good {
					return &codeError{code: exitProblem}
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&q.Runtime, "runtime", core.RuntimeTensorRT, "runtime to build for")
	return c
}

// buildPrinter shows how far a build is. On a terminal the steps of a phase overwrite each other; in a file there is a
// line for each phase when it begins first: some come back hundreds of times.
type buildPrinter struct {
	w         io.Writer
	overwrite bool
	steps     map[string]int // of the phases that run
	open      bool           // the line is not ended
}

func (p *buildPrinter) step(b core.BuildProgress) {
	if b.Step == nil {
		p.end()
		p.steps = map[string]int{}
		if b.State != core.BuildBuilt {
			fmt.Fprintf(p.w, "%s: %s: %s %s\n", b.Stage, b.File, b.State, b.Detail)
		}
		return
	}
	s := b.Step
	_, again := p.steps[s.Phase]
	if s.Steps > 0 {
		p.steps[s.Phase] = s.Steps
	}
	total := p.steps[s.Phase]
	switch {
	case p.overwrite && s.Done >= 0:
		fmt.Fprintf(p.w, "\r\033[K%s: %s %d/%d", b.Stage, s.Phase, s.Done, total)
		p.open = true
	case !p.overwrite && s.Done == 0 && !again:
		fmt.Fprintf(p.w, "%s: %s, %d steps\n", b.Stage, s.Phase, total)
	}
}

// end ends a line that is overwritten.
func (p *buildPrinter) end() {
	if p.open {
		fmt.Fprint(p.w, "\r\033[K")
		p.open = false
	}
}

func printBuild(w io.Writer, r core.BuildReport) {
	fmt.Fprintf(w, "bundle    %s\nruntime   %s (%s, driven by headers %s)\n", r.Model, r.Name, r.Library.Path, r.Library.Headers)
	target := "compute capability " + r.Library.Compute
	if r.Library.Compute == "" {
		target = "no device here: built ahead of time, for the devices that the library supports"
	}
	fmt.Fprintf(w, "target    %s\n\n", target)
	var rows [][]string
	for _, e := range r.Engines {
		row := []string{e.Stage, e.Precision, e.State, "", "", e.File}
		if e.Bytes > 0 {
			row[3] = bytesText(e.Bytes)
		}
		if e.State == core.BuildBuilt {
			row[4] = fmt.Sprintf("%.1f s, %d layers, %d quantise, peak %s", e.Seconds, e.Layers, e.Quantize, bytesText(e.Peak))
		}
		if e.State == core.BuildFound {
			row[4] = "found in the cache"
		}
		rows = append(rows, row)
	}
	table(w, []string{"STAGE", "PRECISION", "STATE", "ENGINE", "HOW", "FILE"}, rows)
	for _, e := range r.Engines {
		fmt.Fprintf(w, "  %s: %s\n", e.Stage, e.Reason)
		if e.Problem != "" {
			fmt.Fprintf(w, "  %s: PROBLEM: %s\n", e.Stage, strings.ReplaceAll(e.Problem, "\n", "; "))
		}
		for _, n := range e.Notes {
			fmt.Fprintf(w, "  %s: note: %s\n", e.Stage, n)
		}
	}
	fmt.Fprintf(w, "\ncache     %s in %d engines, sealed\n", bytesText(r.CacheBytes), r.CacheEntries)
}
