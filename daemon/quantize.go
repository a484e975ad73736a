package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vigil/infer"
	"vigil/infer/quant"
)

// quantizeOptions are the flags of `vigild models quantize`.
type quantizeOptions struct {
	bundle, preset, stage, output, id, library string
	calib                                      string
	samples                                    int
	method                                     string
	percentile                                 float64
	weightBits                                 string
	float                                      []string
	autoFloat                                  string
	dialect                                    string
	pairs, pictures, boxes, prints             string
	mostLoss                                   float64
	runs                                       int
	force                                      bool
}

func (a *app) quantizeCommand() *cobra.Command {
	o := quantizeOptions{}
	c := &cobra.Command{
		Use:   "quantize BUNDLE --stage NAME --calib DIR",
		Short: "Make INT8 variants of a bundle's model, measure them, and keep those that pay",
		Long: "Calibrate the model of a stage on pictures, write it with explicit quantisation in two dialects (ONNX\n" +
			"Runtime on the CPU, TensorRT), and measure accuracy and latency beside fp32 on this machine. A variant\n" +
			"that is slower or loses more than --most-loss stays out, with the reason; --force puts it in, marked.\n" +
			"Accuracy is measured on --pairs and --pictures (embed; detect by the whole way to the decision), on\n" +
			"--boxes (detect), on --prints (extract of a finger bundle), or else as agreement with fp32 on pictures\n" +
			"of --calib that were not calibrated on. BUNDLE is a folder with bundle.json and weights; the variants\n" +
			"and the new bundle.json go there, or to --output. Needs no provisioned device.\n" +
			"Exit code 4: no variant passed.",
		Args: exactly("a BUNDLE"),
		RunE: func(c *cobra.Command, dirs []string) error {
			o.bundle = dirs[0]
			if err := o.check(c); err != nil {
				return err
			}
			return a.quantize(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.stage, "stage", "", "stage whose model is quantised, such as detect or embed")
	f.StringVar(&o.calib, "calib", "", "folder of pictures to calibrate on, searched with its subfolders")
	f.IntVar(&o.samples, "samples", 128, "pictures to take of it, evenly spread")
	f.StringVar(&o.method, "method", string(quant.MSE), "how ranges are chosen: minmax, percentile, entropy or mse")
	f.Float64Var(&o.percentile, "percentile", 0.9999, "share of the values that --method percentile keeps")
	f.StringVar(&o.weightBits, "weight-bits", "auto", "8, 7 (for processors without VNNI), or auto for this one; CPU dialect only")
	f.StringArrayVar(&o.float, "float", nil, "leave this layer in float; may be repeated")
	f.StringVar(&o.autoFloat, "auto-float", "", "leave the N worst layers in float, or with NdB all below N dB")
	f.StringVar(&o.dialect, "dialect", "both", "cpu, tensorrt or both")
	f.StringVar(&o.preset, "preset", "", "use this built-in manifest; BUNDLE holds the weights only")
	f.StringVar(&o.pairs, "pairs", "", "protocol in the layout of LFW's pairs.txt, to measure an embedder, or a detector by the whole way to the decision")
	f.StringVar(&o.pictures, "pictures", "", "folder with a folder per person, for --pairs")
	f.StringVar(&o.boxes, "boxes", "", "annotations in the layout of dlib's training.xml, to measure a detector")
	f.StringVar(&o.prints, "prints", "", "folder of fingerprints FINGER_IMPRESSION.png, to measure the extract stage of a finger bundle")
	f.Float64Var(&o.mostLoss, "most-loss", 0.001, "by how much the accuracy may fall: 0.001 is 0.1 percentage points")
	f.IntVar(&o.runs, "runs", 100, "timed runs of each precision")
	f.BoolVar(&o.force, "force", false, "keep a variant that was refused, marked as forced")
	f.StringVar(&o.output, "output", "", "write the whole bundle to this folder instead")
	f.StringVar(&o.id, "id", "", "id of the new bundle, so that a device can hold both; empty keeps it")
	f.StringVar(&o.library, "runtime-library", "", "libonnxruntime.so.1; empty searches")
	return c
}

// check refuses wrong usage before anything is opened.
func (o *quantizeOptions) check(c *cobra.Command) error {
	switch {
	case o.stage == "" || o.calib == "":
		return usageError(c, "quantize needs --stage and --calib")
	case (o.pairs == "") != (o.pictures == ""):
		return usageError(c, "--pairs and --pictures go together")
	case o.pairs != "" && o.boxes != "":
		return usageError(c, "give one of --pairs and --boxes")
	case o.samples < 1 || o.samples > maxSamples:
		return usageError(c, "--samples %d: 1 to %d", o.samples, maxSamples)
	case o.runs < 1 || o.runs > 100_000:
		return usageError(c, "--runs %d: 1 to 100000", o.runs)
	case !(o.mostLoss >= 0 && o.mostLoss <= 1):
		return usageError(c, "--most-loss %v: 0 to 1", o.mostLoss)
	}
	if _, err := o.dialects(); err != nil {
		return usageError(c, "%w", err)
	}
	if err := infer.CheckID(cmp.Or(o.id, "none")); err != nil {
		return usageError(c, "--%w", err)
	}
	if _, err := o.settings(); err != nil {
		return usageError(c, "%w", err)
	}
	return nil
}

// maxSamples bounds the pictures of one calibration.
const maxSamples = 10_000

func (o *quantizeOptions) dialects() ([]string, error) {
	switch o.dialect {
	case "both":
		return []string{infer.DialectCPU, infer.DialectTensorRT}, nil
	case "cpu":
		return []string{infer.DialectCPU}, nil
	case "tensorrt":
		return []string{infer.DialectTensorRT}, nil
	}
	return nil, fmt.Errorf("--dialect %q: cpu, tensorrt or both", o.dialect)
}

// settings are the options of the calibration.
func (o *quantizeOptions) settings() (quant.Options, error) {
	s := quant.Options{Method: quant.Method(o.method), Percentile: o.percentile, Float: o.float}
	switch o.weightBits {
	case "auto":
	case "7", "8":
		s.WeightBits = int(o.weightBits[0] - '0')
	default:
		return s, fmt.Errorf("--weight-bits %q: 7, 8 or auto", o.weightBits)
	}
	if o.autoFloat != "" {
		text, decibel := strings.CutSuffix(o.autoFloat, "dB")
		v, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil || !(v > 0 && v <= 1000) || !decibel && v != float64(int(v)):
			return s, fmt.Errorf("--auto-float %q: a number of layers such as 3, or a limit such as 20dB", o.autoFloat)
		case decibel:
			s.AutoFloat.DB = v
		default:
			s.AutoFloat.Worst = int(v)
		}
	}
	return s, s.Check()
}

// quantizeReport is the result of `vigild models quantize`.
type quantizeReport struct {
	Model    string            `json:"model"`
	Stage    string            `json:"stage"`
	Runtime  string            `json:"runtime"`
	Pictures int               `json:"pictures"` // calibrated on
	NoFace   int               `json:"without_face,omitempty"`
	Method   string            `json:"method"`
	Variants []quantizeVariant `json:"variants"`
	Written  string            `json:"written,omitempty"` // folder of the new bundle.json; empty if nothing passed
}

// quantizeVariant is one dialect of it.
type quantizeVariant struct {
	Dialect string        `json:"dialect"`
	File    string        `json:"file,omitempty"` // empty if it stays out
	Bytes   int           `json:"bytes"`
	Gate    infer.Gate    `json:"gate"`
	Ratio   *ratio        `json:"speed,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	Layers  []quant.Layer `json:"layers"`
}

// ratio is fp32's time over the variant's, of runs in turns.
type ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"first_quartile"`
	High   float64 `json:"third_quartile"`
	Runs   int     `json:"runs"`
}

func (a *app) quantize(ctx context.Context, o quantizeOptions) (err error) {
	q, err := openQuantizer(ctx, o, a.env.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.close()) }()
	r, err := q.run(ctx)
	if err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) { printQuantize(w, r) }); err != nil {
		return err
	}
	if r.Written == "" {
		return &codeError{code: exitProblem}
	}
	return nil
}

func printQuantize(w io.Writer, r *quantizeReport) {
	fmt.Fprintf(w, "model     %s, stage %s, on %s\n", r.Model, r.Stage, r.Runtime)
	fmt.Fprintf(w, "ranges    %s over %d pictures", r.Method, r.Pictures)
	if r.NoFace > 0 {
		fmt.Fprintf(w, " (%d more show no face)", r.NoFace)
	}
	fmt.Fprintln(w)
	for _, v := range r.Variants {
		fmt.Fprintf(w, "\n%s\n", v.Dialect)
		var rows [][]string
		for _, l := range v.Layers {
			row := []string{l.Name, l.Op, l.Precision, fmt.Sprintf("%.1f", l.SQNR), "", "", l.Reason}
			if l.Precision == "int8" {
				row[4], row[5] = fmt.Sprintf("%.3g..%.3g", l.Low, l.High), strconv.Itoa(l.Bits)
			}
			rows = append(rows, row)
		}
		table(w, []string{"LAYER", "OPERATOR", "PRECISION", "SQNR dB", "INPUT RANGE", "WEIGHT BITS", "WHY"}, rows)
		fmt.Fprintf(w, "accuracy  %s on %s\n", v.Gate.Metric, v.Gate.DataSet)
		if v.Detail != "" {
			fmt.Fprintf(w, "          %s\n", v.Detail)
		}
		if v.Ratio != nil {
			fmt.Fprintf(w, "latency   fp32 %.2f ms, INT8 %.2f ms, ratio %.2f (%.2f to %.2f, %d runs in turns)\n",
				v.Gate.FP32Seconds*1e3, v.Gate.Seconds*1e3, v.Ratio.Median, v.Ratio.Low, v.Ratio.High, v.Ratio.Runs)
		}
		fmt.Fprintf(w, "gate      %s: %s\n", strings.ToUpper(v.Gate.Verdict), v.Gate.Reason)
	}
	if r.Written == "" {
		fmt.Fprintln(w, "\nnothing was written: no variant passed the gate (--force keeps them, marked)")
		return
	}
	fmt.Fprintf(w, "\nwritten   %s\n", r.Written)
}
