package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/infer/quant"
	"vigil/infer/vnni"
	"vigil/secure"
	"vigil/sensors"
)

// quantizer is one run of `vigild models quantize`.
type quantizer struct {
	o      quantizeOptions
	stderr io.Writer
	rt     *ort.Runtime  // one thread: latency is compared per thread
	on     infer.Runtime // what a device runs its models on: rt with our kernels over it
	model  *infer.Model
	stage  *infer.Stage
	pipe   *face.Pipeline   // fp32; nil for a finger bundle
	prints *finger.Pipeline // fp32; nil for a face bundle
	decode func(context.Context, string) (*sensors.Frame, error)
	fp32   *quantizeEvidence // measured once for all dialects
}

// quantizeEvidence is what a precision gave on the labelled set.
type quantizeEvidence struct {
	dataset, metric, detail string
	level                   float64
	wrong                   int
	percent                 bool
}

func openQuantizer(ctx context.Context, o quantizeOptions, stderr io.Writer) (q *quantizer, err error) {
	q = &quantizer{o: o, stderr: stderr, decode: decoder()}
	var manifest *infer.Manifest
	if o.preset != "" {
		if manifest, err = preset.Load(o.preset); err != nil {
			return nil, err
		}
	}
	if q.model, err = infer.FromDir(os.DirFS(o.bundle), manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", o.bundle, err)
	}
	if err := q.checkStage(); err != nil {
		return nil, err
	}
	if q.rt, err = ort.Open(ort.Options{Library: o.library, Threads: 1}); err != nil {
		return nil, err
	}
	q.on = vnni.Over(q.rt)
	plain, err := eval.AtPrecision(q.model.Manifest, eval.FP32, infer.DialectCPU)
	if err == nil {
		fp32 := &infer.Model{Manifest: plain, Open: q.model.Open}
		if plain.Modality == core.Finger {
			q.prints, err = finger.New(ctx, q.on, fp32)
		} else {
			q.pipe, err = face.New(ctx, q.on, fp32)
		}
	}
	if err != nil {
		return nil, errors.Join(err, q.rt.Close())
	}
	return q, nil
}

func (q *quantizer) close() error {
	var errs []error
	if q.pipe != nil {
		errs = append(errs, q.pipe.Close())
	}
	if q.prints != nil {
		errs = append(errs, q.prints.Close())
	}
	return errors.Join(append(errs, q.rt.Close())...)
}

// checkStage finds the stage and refuses what cannot be fed with pictures here.
func (q *quantizer) checkStage() error {
	m := q.model.Manifest
	var have []string
	for _, s := range m.Stages {
		if s.File != "" {
			have = append(have, s.Name)
		}
	}
	if q.stage = m.Stage(q.o.stage); q.stage == nil || q.stage.File == "" {
		return fmt.Errorf("bundle %s has no stage %q that runs a model; it has %s", m.ID, q.o.stage, strings.Join(have, ", "))
	}
	isFace := m.Modality == core.Face && (q.o.stage == face.StageDetect || q.o.stage == face.StageEmbed)
	isFinger := m.Modality == core.Finger && q.o.stage == finger.StageExtract
	if !isFace && !isFinger {
		return fmt.Errorf("stage %q of modality %q: only %q and %q of a face bundle, and %q of a finger bundle, can be calibrated on pictures",
			q.o.stage, m.Modality, face.StageDetect, face.StageEmbed, finger.StageExtract)
	}
	if q.o.pairs != "" && !isFace || q.o.boxes != "" && q.o.stage != face.StageDetect || q.o.prints != "" && !isFinger {
		return fmt.Errorf("stage %q cannot be measured so: --pairs is for %q and %q, --boxes for %q, --prints for %q", q.o.stage,
			face.StageEmbed, face.StageDetect, face.StageDetect, finger.StageExtract)
	}
	return nil
}

func (q *quantizer) run(ctx context.Context) (*quantizeReport, error) {
	w, err := q.model.Open(q.stage.File)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	taken, held, err := q.pictures(ctx)
	if err != nil {
		return nil, err
	}
	o, err := q.o.settings()
	if err != nil {
		return nil, err
	}
	o.Progress = q.progress()
	c, err := quant.Calibrate(ctx, q.rt, w.Bytes(), q.stage.Inputs, taken, o)
	if err != nil {
		return nil, fmt.Errorf("stage %s, file %s: %w", q.stage.Name, q.stage.File, err)
	}
	r := &quantizeReport{
		Model: q.model.Manifest.ID, Stage: q.stage.Name, Runtime: q.on.Name(), Pictures: taken.Len(), NoFace: taken.without + held.without, Method: q.o.method,
	}
	dialects, err := q.o.dialects()
	if err != nil {
		return nil, err
	}
	keep := map[string][]byte{}
	var variants []infer.Variant
	for _, dialect := range dialects {
		v, data, err := q.variant(ctx, c, dialect, w.Bytes(), held)
		if err != nil {
			return nil, fmt.Errorf("dialect %s: %w", dialect, err)
		}
		if v.File != "" {
			keep[v.File] = data
			variants = append(variants, infer.Variant{
				Precision: "int8", Dialect: dialect, File: v.File, Gate: v.Gate,
				Calibration: fmt.Sprintf("%s over %d pictures of %s", q.o.method, taken.Len(), filepath.Base(filepath.Clean(q.o.calib))),
			})
		}
		r.Variants = append(r.Variants, *v)
	}
	if len(variants) == 0 {
		return r, nil
	}
	r.Written, err = q.write(variants, keep)
	return r, err
}

// progress shows one line per step of the calibration.
func (q *quantizer) progress() func(what string, done, total int) {
	var p *progress
	last := ""
	return func(what string, done, total int) {
		if what != last || done == 1 {
			p, last = newProgress(q.stderr, "calibration: "+what), what
		}
		p.update(done, total)
	}
}

// variant writes one dialect, measures it and asks the gate.
func (q *quantizer) variant(ctx context.Context, c *quant.Calibration, dialect string, fp32 []byte, held quant.Samples) (*quantizeVariant, []byte, error) {
	out, err := c.Write(ctx, dialect)
	if err != nil {
		return nil, nil, err
	}
	file := variantName(q.stage.File, dialect, out.Data)
	v := &quantizeVariant{Dialect: dialect, Bytes: len(out.Data), Layers: out.Layers}
	e, err := q.evidence(ctx, v, file, fp32, out.Data, held)
	if err != nil {
		return nil, nil, err
	}
	gate, in := quant.Judge(*e, quant.Limits{MostLoss: q.o.mostLoss}, q.o.force)
	v.Gate = gate
	if in {
		v.File = file
	}
	return v, out.Data, nil
}

// variantName holds a part of the checksum, so that a new variant never takes the place of one that bundle.json still pins.
func variantName(file, dialect string, data []byte) string {
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%s.%s-%x.onnx", strings.TrimSuffix(file, ".onnx"), dialect, sum[:4])
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

// write puts the variants and then bundle.json in place, each atomically: at any moment the folder is a whole bundle, the
// old one or the new one. Variants of the stage that went are removed last.
func (q *quantizer) write(variants []infer.Variant, files map[string][]byte) (string, error) {
	dir := q.o.output
	if dir == "" {
		dir = q.o.bundle
	} else if err := q.copyBundle(dir); err != nil {
		return "", err
	}
	m := *q.model.Manifest
	m.ID = cmp.Or(q.o.id, m.ID)
	m.Stages, m.Files = slices.Clone(m.Stages), map[string]infer.FileSpec{}
	for name, f := range q.model.Manifest.Files {
		m.Files[name] = f
	}
	s := m.Stage(q.stage.Name)
	var gone []string
	for _, old := range s.Variants {
		if files[old.File] == nil && slices.ContainsFunc(variants, func(v infer.Variant) bool { return v.Dialect == old.Dialect }) {
			gone = append(gone, old.File)
			delete(m.Files, old.File)
		} else if files[old.File] == nil {
			variants = append(variants, old)
		}
	}
	s.Variants = variants
	for name, data := range files {
		sum := sha256.Sum256(data)
		m.Files[name] = infer.FileSpec{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(data))}
		if err := secure.WriteFileAtomic(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", err
		}
	}
	text, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return "", err
	}
	if _, err := infer.ParseManifest(text); err != nil {
		return "", fmt.Errorf("the new bundle.json: %w", err)
	}
	if err := secure.WriteFileAtomic(filepath.Join(dir, infer.ManifestName), append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	for _, name := range gone {
		os.Remove(filepath.Join(dir, name)) // nothing names it any more
	}
	return dir, nil
}

// copyBundle copies the verified files of the bundle to another folder.
func (q *quantizer) copyBundle(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name := range q.model.Manifest.Files {
		w, err := q.model.Open(name)
		if err != nil {
			return err
		}
		err = errors.Join(secure.WriteFileAtomic(filepath.Join(dir, name), w.Bytes(), 0o644), w.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

// stageSamples are pictures as tensors of the stage.
type stageSamples struct {
	q       *quantizer
	paths   []string
	ready   [][]float32 // of the embedder: aligning takes a detection each
	without int         // pictures without a face
}

// Len implements quant.Samples.
func (s *stageSamples) Len() int { return len(s.paths) }

// Fill implements quant.Samples.
func (s *stageSamples) Fill(ctx context.Context, i int, input []float32) error {
	if s.ready != nil {
		copy(input, s.ready[i])
		return nil
	}
	f, err := s.q.decode(ctx, s.paths[i])
	if err != nil {
		return fmt.Errorf("%s: %w", s.paths[i], err)
	}
	defer f.Release()
	if s.q.prints != nil {
		return s.q.prints.ExtractInput(input, f, 0)
	}
	return s.q.pipe.DetectInput(input, f)
}

// mostHeld bounds the pictures that are held out to measure agreement.
const mostHeld = 64

// pictures lists those to calibrate on, evenly spread over the folder, and others between them to measure on.
func (q *quantizer) pictures(ctx context.Context) (taken, held *stageSamples, err error) {
	var all []string
	err = filepath.WalkDir(q.o.calib, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := strings.ToLower(filepath.Ext(path)); d.Type().IsRegular() && (ext == ".jpg" || ext == ".jpeg" || ext == ".png") {
			all = append(all, path)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read --calib: %w", err)
	}
	if len(all) < 2 {
		return nil, nil, fmt.Errorf("--calib %s holds %d pictures (.jpg, .jpeg, .png): 2 are needed at least, 100 or more are good", q.o.calib, len(all))
	}
	n := min(q.o.samples, len(all)-1)
	taken, held = &stageSamples{q: q}, &stageSamples{q: q}
	next := 0
	for i, path := range all {
		if next < n && i == next*len(all)/n {
			taken.paths = append(taken.paths, path)
			next++
		} else {
			held.paths = append(held.paths, path)
		}
	}
	if k := len(held.paths); k > mostHeld {
		for i := range mostHeld {
			held.paths[i] = held.paths[i*k/mostHeld]
		}
		held.paths = held.paths[:mostHeld]
	}
	if q.stage.Name == face.StageEmbed {
		err = errors.Join(taken.align(ctx, "calibration"), held.align(ctx, "held-out"))
	}
	return taken, held, err
}

// align prepares the crops of all pictures and drops those without a face.
func (s *stageSamples) align(ctx context.Context, what string) error {
	p := newProgress(s.q.stderr, "aligning "+what+" pictures")
	var paths []string
	s.ready = [][]float32{}
	for i, path := range s.paths {
		f, err := s.q.decode(ctx, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		crop := make([]float32, s.q.stage.Inputs[0].Elements())
		err = s.q.pipe.EmbedInput(ctx, crop, f)
		f.Release()
		switch {
		case errors.Is(err, face.ErrNoFace):
			s.without++
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		default:
			paths, s.ready = append(paths, path), append(s.ready, crop)
		}
		p.update(i+1, len(s.paths))
	}
	if s.paths = paths; len(paths) == 0 {
		return fmt.Errorf("no %s picture shows a face: --calib needs pictures of people", what)
	}
	return nil
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
