package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// evalOptions are the flags of `vigild eval`.
type evalOptions struct {
	models, preset, pairs, pictures, library string
	threads                                  int
}

func (a *app) evalCommand() *cobra.Command {
	var o evalOptions
	c := &cobra.Command{
		Use:   "eval --models DIR --pairs FILE --pictures DIR",
		Short: "Measure the accuracy of a bundle on labelled pairs (LFW layout)",
		Long: "Detect, align and embed every picture that the pairs name, compare, and report the accuracy with\n" +
			"the threshold chosen on the other half of the folds, and the error rates of ISO/IEC 19795-1.\n" +
			"A picture without a face counts as a non-match. Needs no provisioned device.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.models == "" || o.pairs == "" || o.pictures == "" {
				return usageError(c, "eval needs --models, --pairs and --pictures")
			}
			return a.eval(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.models, "models", "", "folder of the bundle, or of the weights of --preset")
	f.StringVar(&o.preset, "preset", "face", "built-in manifest; empty reads bundle.json from --models")
	f.StringVar(&o.pairs, "pairs", "", "protocol in the layout of LFW's pairs.txt")
	f.StringVar(&o.pictures, "pictures", "", "folder with a folder per person")
	f.StringVar(&o.library, "runtime-library", "", "libonnxruntime.so.1; empty searches")
	f.IntVar(&o.threads, "threads", 2, "threads of the runtime")
	return c
}

// evalReport is the result of `vigild eval`.
type evalReport struct {
	Model          string    `json:"model"`
	Runtime        string    `json:"runtime"`
	Pairs          int       `json:"pairs"`
	Pictures       int       `json:"pictures"`
	NoFace         []string  `json:"failure_to_acquire,omitempty"`
	Accuracy       float64   `json:"accuracy"`
	Thresholds     []float32 `json:"thresholds_chosen"` // per half, on the other half
	EER            float64   `json:"eer"`
	EERThreshold   float32   `json:"eer_threshold"`
	Mated          int       `json:"mated_comparisons"`     // of every picture with every other
	NonMated       int       `json:"non_mated_comparisons"` // likewise
	Rates          []rate    `json:"rates"`                 // of these comparisons
	PictureSeconds float64   `json:"seconds_per_picture"`
}

// rate is FNMR at a false match rate.
type rate struct {
	FMR       float64 `json:"fmr"` // asked for
	Measured  float64 `json:"fmr_measured"`
	Threshold float32 `json:"threshold"`
	FNMR      float64 `json:"fnmr"`
}

// leastMatches is how many false matches a rate must rest on to be shown.
const leastMatches = 5

func (a *app) eval(ctx context.Context, o evalOptions) (err error) {
	file, err := os.Open(o.pairs)
	if err != nil {
		return err
	}
	defer file.Close()
	pairs, err := eval.ParsePairs(file)
	if err != nil {
		return fmt.Errorf("%s: %w", o.pairs, err)
	}
	rt, pipe, err := openPipeline(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pipe.Close(), rt.Close()) }()
	start := time.Now()
	out, err := eval.Run(ctx, o.pictures, pairs, eval.Faces(pipe, decoder()), eval.Cosine, newProgress(a.env.Stderr, "pictures").update)
	if err != nil {
		return err
	}
	r := evalReport{
		Model: pipe.ModelID(), Runtime: rt.Name(), Pairs: len(pairs), Pictures: out.Pictures, NoFace: out.NoFace,
		Accuracy: out.Accuracy, Thresholds: out.Thresholds, PictureSeconds: time.Since(start).Seconds() / float64(out.Pictures+len(out.NoFace)),
	}
	r.EER, r.EERThreshold = out.Scores.EER()
	r.Mated, r.NonMated = len(out.Cross.Mated), len(out.Cross.NonMated)
	for fmr := 1e-3; fmr*float64(r.NonMated) >= leastMatches && fmr > 1e-7; fmr /= 10 {
		t := out.Cross.ThresholdAtFMR(fmr)
		r.Rates = append(r.Rates, rate{FMR: fmr, Measured: out.Cross.FMR(t), Threshold: t, FNMR: out.Cross.FNMR(t)})
	}
	return a.print(r, func(w io.Writer) { printEval(w, r) })
}

func openPipeline(ctx context.Context, o evalOptions) (*ort.Runtime, *face.Pipeline, error) {
	var manifest *infer.Manifest
	var err error
	if o.preset != "" {
		if manifest, err = preset.Load(o.preset); err != nil {
			return nil, nil, err
		}
	}
	m, err := infer.FromDir(os.DirFS(o.models), manifest)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", o.models, err)
	}
	rt, err := ort.Open(ort.Options{Library: o.library, Threads: o.threads})
	if err != nil {
		return nil, nil, err
	}
	pipe, err := face.New(ctx, rt, m)
	if err != nil {
		return nil, nil, errors.Join(err, rt.Close())
	}
	return rt, pipe, nil
}

// decoder reads pictures into one frame after the other.
func decoder() func(ctx context.Context, path string) (*sensors.Frame, error) {
	pool := sensors.NewPool(1)
	return func(ctx context.Context, path string) (*sensors.Frame, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return picture.Decode(ctx, pool, data)
	}
}

func printEval(w io.Writer, r evalReport) {
	fmt.Fprintf(w, "model     %s on %s, %.1f ms a picture\n", r.Model, r.Runtime, r.PictureSeconds*1e3)
	fmt.Fprintf(w, "protocol  %d pairs of %d pictures, %d without a face (counted as non-matches)\n", r.Pairs, r.Pictures, len(r.NoFace))
	fmt.Fprintf(w, "accuracy  %.2f %% with thresholds %.3f chosen on the other half\n", r.Accuracy*100, r.Thresholds)
	fmt.Fprintf(w, "EER       %.2f %% at %.3f\n", r.EER*100, r.EERThreshold)
	fmt.Fprintf(w, "\nevery picture with every other: %d mated and %d non-mated comparisons\n", r.Mated, r.NonMated)
	var rows [][]string
	for _, x := range r.Rates {
		rows = append(rows, []string{fmt.Sprintf("%.0e", x.FMR), fmt.Sprintf("%.3f", x.Threshold), fmt.Sprintf("%.2f %%", x.FNMR*100)})
	}
	table(w, []string{"FMR", "THRESHOLD", "FNMR"}, rows)
}
