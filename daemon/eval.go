package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/core"
	"vigil/infer/eval"
	"vigil/infer/eval/report"
)

// evalOptions are the flags of `vigild eval`.
type evalOptions struct {
	models, preset, bundle, library string
	dpi                             float64
	threads                         int
	precision                       []string
	scores                          []string
	pictures, out                   string
	seed                            uint64
	replicates                      int

	pairs     string // of pairs
	every     bool
	impostors string  // of fvc
	enrol     int     // of identify
	strangers float64 // likewise
	list      string  // of liveness
	threshold float64 // likewise
}

const evalHelp = `Measure the accuracy of a bundle on labelled pictures, with confidence bounds, in the terms of
ISO/IEC 19795-1 and 30107-3. A picture that gives no template counts as a non-match. Several systems
stand side by side: --precision fp32,int8 runs the variants of one bundle, --scores NAME=FILE adds
another system's scores (CSV with the header a,b,score; the ids are paths below --pictures without the
extension; an empty score says that the comparison could not be made). --out writes a page with curves,
each curve as SVG and PNG, everything as JSON, and the scores. Needs no provisioned device.`

func (a *app) evalCommand() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval PROTOCOL",
		Short: "Measure the accuracy of a bundle on labelled pictures",
		Long:  evalHelp,
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return usageError(c, "eval needs a PROTOCOL: pairs, fvc, allpairs, identify or liveness")
		},
	}
	f := c.PersistentFlags()
	f.StringVar(&o.models, "models", "", "folder of the weights of --preset")
	f.StringVar(&o.preset, "preset", "face", "built-in manifest; empty reads bundle.json from --models")
	f.StringVar(&o.bundle, "bundle", "", "folder of a bundle with its bundle.json, instead of --models; \"built-in\" is the fingerprint bundle in the binary")
	f.Float64Var(&o.dpi, "dpi", 0, "pixels per inch of fingerprints; 0 means 500")
	f.StringVar(&o.pictures, "pictures", "", "folder of the pictures")
	f.StringSliceVar(&o.precision, "precision", []string{eval.FP32}, "precisions of the bundle to run side by side: fp32, int8")
	f.StringArrayVar(&o.scores, "scores", nil, "another system's scores, as [NAME=]FILE; may be repeated")
	f.StringVar(&o.out, "out", "", "write the report into this folder")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the bootstrap and of every draw")
	f.IntVar(&o.replicates, "bootstrap", 1000, "replicates of the bootstrap; fewer for very large protocols, 0 for none")
	f.StringVar(&o.library, "runtime-library", "", "libonnxruntime.so.1; empty searches")
	f.IntVar(&o.threads, "threads", 2, "threads of the runtime")
	c.AddCommand(a.evalPairs(&o), a.evalFVC(&o), a.evalAllPairs(&o), a.evalIdentify(&o), a.evalLiveness(&o))
	return c
}

// evalSub is a protocol's command: it checks the common flags, makes the sections and gives the report.
func (a *app) evalSub(
	o *evalOptions, use, short, long string, sections func(ctx context.Context, e *evaluation) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c); err != nil {
				return err
			}
			now := time.Now().UTC().Format(time.RFC3339)
			e := &evaluation{app: a, o: o, report: eval.NewReport(short, "vigild "+core.Version, now, o.seed)}
			if err := sections(c.Context(), e); err != nil {
				return err
			}
			return e.finish()
		},
	}
}

// check is about the flags that all protocols share.
func (o *evalOptions) check(c *cobra.Command) error {
	need := func(flag string) bool { f := c.Flags().Lookup(flag); return f != nil && f.Value.String() == "" }
	name := c.Name()
	switch {
	case o.models != "" && o.bundle != "":
		return usageError(c, "eval %s takes either --models or --bundle", name)
	case o.models == "" && o.bundle == "" && len(o.scores) == 0:
		return usageError(c, "eval %s needs --models or --bundle, or the --scores of a system", name)
	case o.replicates < 0 || o.replicates > 100000:
		return usageError(c, "--bootstrap %d: 0 to 100000", o.replicates)
	case len(o.precision) == 0 || slices.Contains(o.precision, ""):
		return usageError(c, "--precision needs fp32, int8 or both")
	}
	if twice := o.twice(); twice != "" {
		return usageError(c, "two systems are called %q: name the others by --scores NAME=FILE", twice)
	}
	for _, flag := range []string{"pairs", "list", "pictures"} {
		if need(flag) {
			return usageError(c, "eval %s needs --%s", name, flag)
		}
	}
	return nil
}

// twice is a name that two systems of the report would have.
func (o *evalOptions) twice() string {
	var names []string
	if o.models != "" || o.bundle != "" {
		names = slices.Clone(o.precision)
	}
	for _, s := range o.scores {
		name, _ := named(s)
		names = append(names, name)
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return n
		}
	}
	return ""
}

func (a *app) evalPairs(o *evalOptions) *cobra.Command {
	c := a.evalSub(o, "pairs --pairs FILE --pictures DIR", "Verification pairs (LFW layout)",
		"Compare the pairs of a file in the layout of LFW's pairs.txt: a line \"folds pairs\", then per fold that\n"+
			"many mated lines \"name i j\" and as many non-mated ones \"name i name j\". Picture i of a name is\n"+
			"NAME/NAME_000i.jpg below --pictures. Accuracy has its threshold chosen on the other half of the folds.",
		func(ctx context.Context, e *evaluation) error {
			file, err := os.Open(o.pairs)
			if err != nil {
				return err
			}
			defer file.Close()
			pairs, err := eval.ParsePairs(file)
			if err != nil {
				return fmt.Errorf("%s: %w", o.pairs, err)
			}
			p, err := eval.FromPairs(o.pictures, pairs)
			if err != nil {
				return err
			}
			list := []*eval.Protocol{p}
			if o.every {
				every, err := p.Every()
				if err != nil {
					return err
				}
				list = append(list, every)
			}
			return e.verify(ctx, list)
		})
	c.Flags().StringVar(&o.pairs, "pairs", "", "protocol file")
	c.Flags().BoolVar(&o.every, "every", false, "also compare every picture that the pairs name with every other")
	return c
}

func (a *app) evalFVC(o *evalOptions) *cobra.Command {
	c := a.evalSub(o, "fvc --pictures DIR", "Fingerprint verification (FVC protocol)",
		"Compare the pictures F_I.EXT of a folder (finger, impression) as the Fingerprint Verification\n"+
			"Competitions do: mated are all pairs of impressions of a finger, each once; non-mated are the first\n"+
			"impressions of all fingers with each other, or, with --impostors all, every impression with every\n"+
			"impression of the other fingers.",
		func(ctx context.Context, e *evaluation) error {
			p, err := eval.FVC(o.pictures, eval.Impostors(o.impostors))
			if err != nil {
				return err
			}
			return e.verify(ctx, []*eval.Protocol{p})
		})
	c.Flags().StringVar(&o.impostors, "impostors", string(eval.FirstImpressions), "non-mated comparisons: first (FVC), or all")
	return c
}

func (a *app) evalAllPairs(o *evalOptions) *cobra.Command {
	return a.evalSub(o, "allpairs --pictures DIR", "Every picture with every other",
		"Compare every picture (.jpg, .jpeg, .png) of a folder with a folder per subject with every other.",
		func(ctx context.Context, e *evaluation) error {
			p, err := eval.AllPairs(o.pictures)
			if err != nil {
				return err
			}
			return e.verify(ctx, []*eval.Protocol{p})
		})
}

func (a *app) evalIdentify(o *evalOptions) *cobra.Command {
	c := a.evalSub(o, "identify --pictures DIR", "Open-set identification (1:N)",
		"Search the pictures of a folder with a folder per subject in galleries of growing size. Subjects with\n"+
			"more than --enrol pictures are enrolled with their first ones and looked for with the rest; the others,\n"+
			"and enough more for the share --strangers, are never enrolled and must not be found. FNIR is given at\n"+
			"FPIR 0.1, 1 and 10 %.",
		func(ctx context.Context, e *evaluation) error {
			if len(o.scores) > 0 {
				return fmt.Errorf("eval identify takes no --scores: a file of scores holds no searches")
			}
			samples, err := eval.Tree(o.pictures)
			if err != nil {
				return err
			}
			s, err := eval.NewSearch(samples, eval.SearchOptions{Seed: o.seed, PerPerson: o.enrol, Strangers: o.strangers})
			if err != nil {
				return fmt.Errorf("%s: %w", o.pictures, err)
			}
			return e.identify(ctx, s)
		})
	c.Flags().IntVar(&o.enrol, "enrol", 1, "pictures enrolled of each subject")
	c.Flags().Float64Var(&o.strangers, "strangers", 0.3, "least share of the subjects that is never enrolled")
	return c
}

func (a *app) evalLiveness(o *evalOptions) *cobra.Command {
	c := a.evalSub(o, "liveness --list FILE --pictures DIR", "Presentation attack detection (liveness)",
		"Score the presentations of a list: lines \"path label species\", separated by blanks or tabs; the label is\n"+
			"bonafide, without a species, or attack, with one (print, replay, ...). Gives APCER per species and BPCER\n"+
			"at --threshold, and BPCER at APCER 5 and 1 %. A file of --scores has the header path,score here.",
		func(ctx context.Context, e *evaluation) error {
			file, err := os.Open(o.list)
			if err != nil {
				return err
			}
			defer file.Close()
			list, err := eval.ParseLiveness(file)
			if err != nil {
				return fmt.Errorf("%s: %w", o.list, err)
			}
			return e.liveness(ctx, list)
		})
	c.Flags().StringVar(&o.list, "list", "", "list of the presentations")
	c.Flags().Float64Var(&o.threshold, "threshold", 0.5, "score at or over which a presentation is called bona fide")
	return c
}

// evaluation is one call of the command.
type evaluation struct {
	app    *app
	o      *evalOptions
	report *eval.Report
	files  []string // written so far, beside the report
}

// finish prints the report and writes its files.
func (e *evaluation) finish() error {
	if e.o.out != "" {
		names, err := report.Write(e.o.out, e.report)
		if err != nil {
			return fmt.Errorf("cannot write the report: %w", err)
		}
		e.files = append(e.files, names...)
	}
	return e.app.print(e.report, e.print)
}

// progress shows the parts of the work that take longer than a moment.
func (e *evaluation) progress() eval.Progress {
	var what string
	var p *progress
	var since time.Time
	return func(part string, done, total int) {
		if part != what {
			what, p, since = part, newProgress(e.app.env.Stderr, part), time.Now()
		}
		if time.Since(since) > time.Second {
			p.update(done, total)
		}
	}
}

// named splits [NAME=]FILE; a file alone gives its own name.
func named(arg string) (name, file string) {
	if name, file, ok := strings.Cut(arg, "="); ok && name != "" && !strings.ContainsAny(name, `/\`) {
		return name, file
	}
	return strings.TrimSuffix(filepath.Base(arg), filepath.Ext(arg)), arg
}
