package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/quant"
)

// quantizeEvidence is what a precision gave on the labelled set.
type quantizeEvidence struct {
	dataset, metric, detail string
	level                   float64
	wrong                   int
	percent                 bool
}

// evidence measures accuracy of both precisions and, for the dialect of this runtime, the latency.
func (q *quantizer) evidence(ctx context.Context, v *quantizeVariant, file string, fp32, int8 []byte, held quant.Samples) (*quant.Evidence, error) {
	engines, err := q.engines(ctx, fp32, int8)
	if err != nil {
		return nil, err
	}
	defer func() { engines[0].Close(); engines[1].Close() }()
	e := &quant.Evidence{Machine: machine() + ", " + q.on.Name()}
	if q.o.pairs == "" && q.o.boxes == "" && q.o.prints == "" {
		a, err := quant.Agree(ctx, engines, len(q.stage.Outputs), held)
		if err != nil {
			return nil, err
		}
		e.DataSet, e.Metric, e.FP32, e.Variant = fmt.Sprintf("%d pictures held out of the calibration", a.Samples), "mean cosine to fp32", 1, a.Cosine
		v.Detail = fmt.Sprintf("mean cosine to fp32 %.4f, worst %.4f, %.1f dB", a.Cosine, a.Worst, a.SQNR)
	} else if err := q.labelled(ctx, e, v, file, int8); err != nil {
		return nil, err
	}
	if v.Dialect != infer.DialectCPU {
		return e, nil
	}
	var failed error
	e.Latency, err = quant.RaceEngines(ctx, engines, func(in []float32) { failed = errors.Join(failed, held.Fill(ctx, 0, in)) }, q.o.runs)
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	v.Ratio = &ratio{Median: e.Latency.Ratio, Low: e.Latency.Low, High: e.Latency.High, Runs: e.Latency.Runs}
	return e, nil
}

func (q *quantizer) engines(ctx context.Context, models ...[]byte) (e [2]infer.Engine, err error) {
	for i, data := range models {
		if e[i], err = q.on.Load(ctx, data, q.stage.Inputs, q.stage.Outputs); err != nil {
			if i > 0 {
				e[0].Close()
			}
			return e, err
		}
	}
	return e, nil
}

// labelled measures both precisions on the labelled set.
func (q *quantizer) labelled(ctx context.Context, e *quant.Evidence, v *quantizeVariant, file string, int8 []byte) (err error) {
	var got *quantizeEvidence
	if q.prints != nil {
		got, err = q.labelledPrints(ctx, v, file, int8)
	} else {
		got, err = q.labelledFaces(ctx, v, file, int8)
	}
	if err != nil {
		return err
	}
	e.DataSet, e.Metric, e.Percent = got.dataset, got.metric, got.percent
	e.FP32, e.Variant, e.FalseFP32, e.FalseVariant = q.fp32.level, got.level, q.fp32.wrong, got.wrong
	v.Detail = fmt.Sprintf("fp32 %s; INT8 %s", q.fp32.detail, got.detail)
	return nil
}

// labelledFaces measures the face pipeline with the variant, and once as it is.
func (q *quantizer) labelledFaces(ctx context.Context, v *quantizeVariant, file string, int8 []byte) (got *quantizeEvidence, err error) {
	if q.fp32 == nil {
		if q.fp32, err = q.measure(ctx, q.pipe, "fp32"); err != nil {
			return nil, err
		}
	}
	pipe, err := face.New(ctx, q.on, q.with(file, int8))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pipe.Close()) }()
	return q.measure(ctx, pipe, v.Dialect)
}

// labelledPrints measures the finger pipeline with the variant, and once as it is.
func (q *quantizer) labelledPrints(ctx context.Context, v *quantizeVariant, file string, int8 []byte) (got *quantizeEvidence, err error) {
	if q.fp32 == nil {
		if q.fp32, err = q.measurePrints(ctx, q.prints, "fp32"); err != nil {
			return nil, err
		}
	}
	pipe, err := finger.New(ctx, q.on, q.with(file, int8))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pipe.Close()) }()
	return q.measurePrints(ctx, pipe, v.Dialect)
}

// measurePrints is the EER of every impression with every other.
func (q *quantizer) measurePrints(ctx context.Context, pipe *finger.Pipeline, what string) (*quantizeEvidence, error) {
	p, err := eval.FVC(q.o.prints, eval.EveryImpression)
	if err != nil {
		return nil, err
	}
	bar := newProgress(q.stderr, "accuracy of "+what+": pictures")
	run, err := eval.Collect(ctx, what, p, eval.Fingers(pipe, q.decode, 0), func(step string, done, total int) {
		if step == "samples" {
			bar.update(done, total)
		}
	})
	if err != nil {
		return nil, err
	}
	var scores eval.Scores
	for i, c := range p.Comparisons {
		if v := run.Scores[i]; c.Mated {
			scores.Mated = append(scores.Mated, v)
		} else {
			scores.NonMated = append(scores.NonMated, v)
		}
	}
	scores.Sort()
	eer, _ := scores.EER()
	return &quantizeEvidence{
		dataset: fmt.Sprintf("%d prints of %s", len(p.Samples), filepath.Base(q.o.prints)), metric: "1 - EER, every impression with every other", percent: true,
		level: 1 - eer, detail: fmt.Sprintf("EER %.2f %%", eer*100),
	}, nil
}

// with is the bundle with another file in the stage.
func (q *quantizer) with(file string, data []byte) *infer.Model {
	m := *q.model.Manifest
	m.Stages = slices.Clone(m.Stages)
	for i := range m.Stages {
		m.Stages[i].Variants = nil // only the one that is measured
	}
	m.Stage(q.stage.Name).File = file
	return &infer.Model{Manifest: &m, Open: func(name string) (infer.Weights, error) {
		if name == file {
			return openWeights(data), nil
		}
		return q.model.Open(name)
	}}
}

// openWeights are weights in ordinary memory.
type openWeights []byte

func (w openWeights) Bytes() []byte { return w }
func (w openWeights) Close() error  { return nil }

func (q *quantizer) measure(ctx context.Context, pipe *face.Pipeline, what string) (*quantizeEvidence, error) {
	if q.o.boxes != "" {
		return q.measureBoxes(ctx, pipe)
	}
	file, err := os.Open(q.o.pairs)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	pairs, err := eval.ParsePairs(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.o.pairs, err)
	}
	protocol, err := eval.FromPairs(q.o.pictures, pairs)
	if err != nil {
		return nil, err
	}
	if err := q.checkCrops(ctx, protocol, pipe); err != nil {
		return nil, err
	}
	bar := newProgress(q.stderr, "accuracy of "+what+": pictures")
	run, err := eval.Collect(ctx, what, protocol, eval.Embedder(pipe, q.decode), func(step string, done, total int) {
		if step == "samples" {
			bar.update(done, total)
		}
	})
	if err != nil {
		return nil, err
	}
	accuracy, _ := eval.CrossValidated(protocol, run.Scores)
	return &quantizeEvidence{
		dataset: fmt.Sprintf("%d pairs of %s", len(pairs), filepath.Base(q.o.pairs)), metric: "accuracy with the threshold of the other half", percent: true,
		level: accuracy, detail: fmt.Sprintf("%.2f %% right", accuracy*100),
	}, nil
}

// checkCrops refuses to judge a detector by pictures that it never sees: crops that are aligned already go to the embedder as
// they are.
func (q *quantizer) checkCrops(ctx context.Context, p *eval.Protocol, pipe *face.Pipeline) error {
	if q.stage.Name != face.StageDetect || len(p.Samples) == 0 {
		return nil
	}
	f, err := q.decode(ctx, p.Samples[0].Path)
	if err != nil {
		return err
	}
	defer f.Release()
	if f.Width == pipe.CropSize() && f.Height == pipe.CropSize() {
		return fmt.Errorf("%s holds aligned crops, which no detector looks at: give --pictures the pictures that they were made of", q.o.pictures)
	}
	return nil
}

func (q *quantizer) measureBoxes(ctx context.Context, pipe *face.Pipeline) (*quantizeEvidence, error) {
	file, err := os.Open(q.o.boxes)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	pictures, err := eval.ParseBoxes(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.o.boxes, err)
	}
	d, err := eval.Detect(ctx, filepath.Dir(q.o.boxes), pictures, pipe, q.decode)
	if err != nil {
		return nil, err
	}
	if d.Faces == 0 {
		return nil, fmt.Errorf("%s: no face is annotated", q.o.boxes)
	}
	return &quantizeEvidence{
		dataset: fmt.Sprintf("%d faces of %s", d.Faces, filepath.Base(q.o.boxes)), metric: "share of faces found", percent: true,
		level: d.Recall(), wrong: d.False, detail: fmt.Sprintf("%d of %d faces, %d false", d.Found, d.Faces, d.False),
	}, nil
}

// machine names the processor, as far as Linux tells.
func machine() string {
	name := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
				name = strings.TrimSpace(value)
				break
			}
		}
	}
	if !quant.HasDotProduct() {
		name += " without VNNI"
	}
	return name
}
