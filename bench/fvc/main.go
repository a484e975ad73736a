// Command fvc measures fingerprint systems side by side on the open sets of FVC2002 and FVC2004: NIST's mindtct and
// bozorth3 (bench/nbis), our own system (ours.go), and any other whose scores are in files.
//
// For every set and both ways to choose impostors it prints the EER in three readings (by interpolation, the mean of
// both rates at the nearest score, and the middle of FVC's interval), the FNMR at FMR 1 %, 0.1 % and at no false match
// (FVC's FMR100, FMR1000 and zeroFMR), with bounds, and with -out writes the report of infer/eval with curves, paired
// differences and the scores. A failed extraction of NBIS is a score of 0; ours count as the evaluation counts them, as
// non-matches.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"vigil/bench/nbis"
	"vigil/infer/eval"
	"vigil/infer/eval/report"
)

// openSet is one of the sets, with the resolution of its sensor as the competitions publish it.
type openSet struct {
	name, title string
	ppi         int
}

var sets = []openSet{
	{"fvc2002_DB1_B", "FVC2002 DB1 (optical)", 500},
	{"fvc2002_DB3_B", "FVC2002 DB3 (capacitive)", 500},
	{"fvc2004_DB2_B", "FVC2004 DB2 (optical)", 500},
	{"fvc2004_DB3_B", "FVC2004 DB3 (thermal sweep)", 512},
}

// options are the flags.
type options struct {
	data, out, program string
	scores             scoreFlags
	seed               uint64
	replicates         int
}

// scoreFlags are pairs NAME=DIR; DIR holds SET.csv with the scores of every comparison of both protocols.
type scoreFlags []string

func (s *scoreFlags) String() string { return strings.Join(*s, " ") }

func (s *scoreFlags) Set(v string) error {
	if name, dir, ok := strings.Cut(v, "="); !ok || name == "" || dir == "" {
		return errors.New("must be NAME=DIR")
	}
	*s = append(*s, v)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.data, "data", "../shared/data/fingerprints", "`folder` of the sets, each a folder of F_I.png")
	flag.StringVar(&o.out, "out", "", "write the report with all curves into this `folder`")
	flag.StringVar(&o.program, "nbis", nbis.Program, "the `program` that bench/nbis/setup builds; empty leaves NBIS out")
	flag.Var(&o.scores, "scores", "another system, as `NAME=DIR` with DIR/SET.csv (a,b,score); may be repeated")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the bootstrap")
	flag.IntVar(&o.replicates, "bootstrap", 1000, "replicates of the bootstrap")
	flag.Parse()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "fvc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	r := eval.NewReport("Fingerprint verification on the open sets of FVC", "bench/fvc", time.Now().UTC().Format(time.RFC3339), o.seed)
	for _, s := range sets {
		if _, err := os.Stat(filepath.Join(o.data, s.name)); err != nil {
			return fmt.Errorf("no data: %w: point VIGIL_DATA to the folder that holds fingerprints/", err)
		}
		fmt.Fprintf(os.Stderr, "%s\n", s.title)
		sections, err := one(ctx, o, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r.Sections = append(r.Sections, sections...)
	}
	print(r)
	if o.out == "" {
		return nil
	}
	names, err := report.Write(o.out, r)
	if err == nil {
		fmt.Printf("\nreport of %d files: %s\n", len(names), filepath.Join(o.out, report.PageName))
	}
	return err
}

// one measures every system on one set, in both protocols. Templates are made once, for the larger one.
func one(ctx context.Context, o options, s openSet) ([]eval.Section, error) {
	var out []eval.Section
	systems, err := open(ctx, o, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, x := range systems {
			x.close()
		}
	}()
	for _, v := range []struct {
		impostors eval.Impostors
		title     string
	}{{eval.FirstImpressions, "impostors as FVC: first impressions"}, {eval.EveryImpression, "impostors: every impression"}} {
		p, err := eval.FVC(filepath.Join(o.data, s.name), v.impostors)
		if err != nil {
			return nil, err
		}
		var runs []*eval.Run
		for _, x := range systems {
			r, err := x.run(ctx, p)
			if err != nil {
				return nil, err
			}
			runs = append(runs, r)
		}
		if len(runs) == 0 {
			return nil, errors.New("no system to measure: leave -nbis as it is, or name -scores")
		}
		ver, err := eval.Verify(p, runs, eval.Options{Seed: o.seed, Replicates: o.replicates})
		if err != nil {
			return nil, err
		}
		if err := writeScores(o.out, s.name+"-"+string(v.impostors), p, runs); err != nil {
			return nil, err
		}
		out = append(out, eval.Section{Name: s.name + "-" + string(v.impostors), Title: s.title + ", " + v.title, Verification: ver})
	}
	return out, nil
}

// writeScores writes SECTION-scores-SYSTEM.csv beside the report.
func writeScores(dir, section string, p *eval.Protocol, runs []*eval.Run) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, r := range runs {
		f, err := os.Create(filepath.Join(dir, section+"-scores-"+filepath.Base(r.Name)+".csv"))
		if err != nil {
			return err
		}
		if err := errors.Join(eval.WriteScores(f, p, r), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// system answers protocols over the samples of one set.
type system struct {
	run   func(ctx context.Context, p *eval.Protocol) (*eval.Run, error)
	close func()
}

// open makes the templates of a set with every system.
func open(ctx context.Context, o options, s openSet) ([]system, error) {
	p, err := eval.FVC(filepath.Join(o.data, s.name), eval.EveryImpression)
	if err != nil {
		return nil, err
	}
	var list []system
	if o.program != "" {
		n, err := nbis.Extract(ctx, o.program, p.Samples, s.ppi)
		if err != nil {
			return nil, fmt.Errorf("%w (bench/nbis/setup builds it)", err)
		}
		run := func(ctx context.Context, p *eval.Protocol) (*eval.Run, error) { return n.Run(ctx, "nbis", p) }
		list = append(list, system{run, func() { n.Close() }})
	}
	for _, x := range ours {
		e, done, err := x.open(ctx, s.ppi)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.name, err)
		}
		a, err := eval.Acquire(ctx, p.Samples, e, func(string, int, int) {})
		if err != nil {
			done()
			return nil, fmt.Errorf("%s: %w", x.name, err)
		}
		run := func(ctx context.Context, p *eval.Protocol) (*eval.Run, error) {
			return a.Run(ctx, x.name, p, e, func(string, int, int) {})
		}
		list = append(list, system{run, done})
	}
	for _, f := range o.scores {
		name, dir, _ := strings.Cut(f, "=")
		list = append(list, system{fromFile(name, filepath.Join(dir, s.name+".csv")), func() {}})
	}
	return list, nil
}

func fromFile(name, path string) func(context.Context, *eval.Protocol) (*eval.Run, error) {
	return func(_ context.Context, p *eval.Protocol) (*eval.Run, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r, err := eval.ReadScores(name, p, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return r, nil
	}
}

func print(r *eval.Report) {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for i, s := range r.Sections {
		if i == 0 {
			fmt.Fprintf(t, "%d mated comparisons a set; in brackets %.0f %% bounds, %d replicates over fingers, seed %d\n",
				s.Verification.Mated, r.Confidence*100, s.Verification.Replicates, r.Seed)
		}
		fmt.Fprintf(t, "\n%s (%d non-mated)\n", s.Title, s.Verification.NonMated)
		fmt.Fprint(t, "SYSTEM\tEER\tNEAREST\tFVC\tFMR100\tFMR1000\tZEROFMR\tFAILED\tPER PICTURE\n")
		for _, x := range s.Verification.Runs {
			fmt.Fprintf(t, "%s\t%s\t%.2f %%\t%.2f %%\t%s\t%s\t%s\t%d\t%.0f ms\n", x.Name,
				rate(x.EER), x.Nearest*100, (x.FVCEER[0]+x.FVCEER[1])*50, rate(x.Rates[0].FNMR), rate(x.Rates[1].FNMR), rate(x.ZeroFMR), len(x.Failures), x.Seconds*1e3)
		}
		for _, d := range s.Verification.Differences {
			g := d.Rates["eer"]
			if g.Low != nil {
				fmt.Fprintf(t, "%s - %s\t%+.2f points (%+.2f..%+.2f)\n", d.Run, d.To, g.Value*100, *g.Low*100, *g.High*100)
			}
		}
	}
	t.Flush()
}

// rate is an estimate in percent with its bounds.
func rate(e eval.Estimate) string {
	if e.Low == nil {
		return fmt.Sprintf("%.2f %%", e.Value*100)
	}
	return fmt.Sprintf("%.2f %% (%.1f..%.1f)", e.Value*100, *e.Low*100, *e.High*100)
}
