// Package finger is the pipeline from a frame of a fingerprint reader to a template: extract, quality, describe.
//
// One network sees the whole print and says, for every cell of 8 x 8 pixels, whether there is finger, how legible it is,
// where the ridges go and where a minutia lies; a second one describes the surroundings of each minutia. The template is
// the best minutiae with their descriptions, see kernels/minutiae.
//
// Promises: stages run in the order of the bundle on tensors bound once; in steady state Process allocates nothing. Pixels
// are read once, into grey at the resolution of the model, and once more, normalised, into the input tensor. Every stage
// is timed against its deadline, and the context is checked between stages.
//
// A Pipeline serves one goroutine at a time and blocks while its engines run; it owns engines and tensors, borrows the
// frame, and fills a Result that the caller owns and may reuse; the Result's owner calls Wipe. It does not compare,
// decide or store anything.
package finger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"vigil/infer"
	"vigil/kernels"
	"vigil/kernels/minutiae"
	"vigil/sensors"
)

// Stage names, in order.
const (
	StageExtract  = "extract"
	StageQuality  = "quality"
	StageDescribe = "describe"
)

var order = [stages]string{StageExtract, StageQuality, StageDescribe}

const stages = 3

// DPI is the resolution that models are trained for; frames of another are scaled.
const DPI = 500

// Result is what one frame gave. Its memory is reused by the next Process with the same Result.
type Result struct {
	Present  bool // there is a finger; the rest is meaningless otherwise
	Quality  Quality
	Minutiae int    // in Values
	Values   []int8 // template, a row of kernels/minutiae; its scale is 1
	Timings  [stages]infer.Timing
	Total    time.Duration
}

// Wipe overwrites the template.
func (r *Result) Wipe() {
	clear(r.Values)
	r.Present, r.Minutiae = false, 0
}

// Pipeline turns frames into templates.
type Pipeline struct {
	manifest *infer.Manifest
	extract  *extractor
	describe *describer
	budget   [stages]time.Duration
	gray     []byte // the frame at DPI, cut to the input
	spare    []byte // the whole frame at DPI, when it is larger
	norm     kernels.LocalNorm
}

// Check says whether a manifest describes a finger pipeline: its stages, steps and parameters, as far as that can be said
// without the files.
func Check(m *infer.Manifest) error {
	_, err := configure(m)
	return err
}

// New loads the engines of the bundle on the runtime and runs each once, so that a model that loads but cannot run is
// refused here. What a preset left open in the manifest is filled in (infer.Model.Complete).
func New(ctx context.Context, rt infer.Runtime, m *infer.Model) (*Pipeline, error) {
	if err := m.Complete(rt); err != nil {
		return nil, fmt.Errorf("cannot load bundle %s: %w", m.Manifest.ID, err)
	}
	p, err := configure(m.Manifest)
	if err == nil {
		err = p.load(ctx, rt, m)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot load bundle %s: %w", m.Manifest.ID, err), p.Close())
	}
	return p, nil
}

// configure makes a pipeline without engines.
func configure(m *infer.Manifest) (p *Pipeline, err error) {
	p = &Pipeline{manifest: m}
	if t := m.Template; t.Type != "minutiae" || t.Dimension != minutiae.Bytes {
		return p, fmt.Errorf("template %q of %d values: a finger bundle has \"minutiae\" of %d", t.Type, t.Dimension, minutiae.Bytes)
	}
	for i, name := range order {
		s := m.Stage(name)
		if s == nil {
			return p, fmt.Errorf("stage %q is missing: a finger bundle has %v", name, order)
		}
		p.budget[i] = s.Deadline()
	}
	if p.extract, err = newExtractor(m.Stage(StageExtract)); err != nil {
		return p, fmt.Errorf("stage %s: %w", StageExtract, err)
	}
	if p.describe, err = newDescriber(m.Stage(StageDescribe), p.extract); err != nil {
		return p, fmt.Errorf("stage %s: %w", StageDescribe, err)
	}
	p.gray = make([]byte, p.extract.w*p.extract.h)
	return p, nil
}

func (p *Pipeline) load(ctx context.Context, rt infer.Runtime, m *infer.Model) (err error) {
	if p.extract.model, err = infer.LoadStage(ctx, rt, m, m.Manifest.Stage(StageExtract)); err != nil {
		return err
	}
	if p.describe.model, err = infer.LoadStage(ctx, rt, m, m.Manifest.Stage(StageDescribe)); err != nil {
		return err
	}
	p.describe.append = minutiae.Append
	if slices.Contains(p.describe.model.Choice.Operators, infer.OpL2NormalizeQuantize) {
		p.describe.append = minutiae.AppendWhole // the graph has scaled and rounded
	}
	return nil
}

// Share is a pipeline over the same engines with tensors of its own, for one more goroutine. Each of the two is closed by
// its owner, in any order.
func (p *Pipeline) Share() (*Pipeline, error) {
	n, err := configure(p.manifest)
	if err == nil {
		n.extract.model, err = p.extract.model.Share()
	}
	if err == nil {
		n.describe.model, err = p.describe.model.Share()
		n.describe.append = p.describe.append
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot share bundle %s: %w", p.manifest.ID, err), n.Close())
	}
	return n, nil
}

// Choices says which file each stage with a model runs, and why.
func (p *Pipeline) Choices() []infer.Choice {
	return []infer.Choice{p.extract.model.Choice, p.describe.model.Choice}
}

// ModelID is the id under which the pipeline's templates may be compared.
func (p *Pipeline) ModelID() string { return p.manifest.ID }

// Dimension is the number of values of a template.
func (p *Pipeline) Dimension() int { return minutiae.Bytes }

// NewResult returns a Result with room for a template.
func (p *Pipeline) NewResult() *Result { return &Result{Values: make([]int8, minutiae.Bytes)} }

// ErrFormat means that the frame's pixels cannot be read by the pipeline.
var ErrFormat = infer.ErrFormat

// Process makes the template of the finger in a frame of the given resolution in pixels per inch; 0 means DPI. A frame
// without a finger is no error: Present is false. It returns an error wrapping ErrFormat for a frame that is malformed,
// the context's error when time is up, or the engine's; r then holds no template.
func (p *Pipeline) Process(ctx context.Context, f *sensors.Frame, dpi float64, r *Result) error {
	start := time.Now()
	r.Wipe()
	for i, name := range order {
		r.Timings[i] = infer.Timing{Stage: name, Deadline: p.budget[i]}
	}
	im, err := infer.ViewFrame(f)
	if err != nil {
		return err
	}
	if err := p.run(ctx, &im, dpi, r, start); err != nil {
		r.Wipe()
		return err
	}
	r.Total = time.Since(start)
	return nil
}

func (p *Pipeline) run(ctx context.Context, im *kernels.Image, dpi float64, r *Result, start time.Time) error {
	w, h, err := p.prepare(im, dpi)
	if err != nil {
		return err
	}
	p.extract.fill(&p.norm, p.extract.model.IO.Input(0), p.gray, w, h)
	if err := p.extract.model.IO.Run(ctx); err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	p.extract.find()
	t := time.Now()
	r.Timings[0].Took = t.Sub(start)
	r.Quality = p.extract.judge()
	r.Quality.Components = p.extract.components(&r.Quality, p.gray, w, h)
	r.Present = r.Quality.present
	r.Timings[1].Took = time.Since(t)
	if !r.Present {
		return ctx.Err()
	}
	t = time.Now()
	if err := p.describe.run(ctx, p.extract, r.Values); err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	r.Minutiae = minutiae.Count(r.Values)
	r.Timings[2].Took = time.Since(t)
	return nil
}

// prepare fills p.gray with the frame at DPI, cut to the size of the input about the finger.
func (p *Pipeline) prepare(im *kernels.Image, dpi float64) (w, h int, err error) {
	if dpi == 0 {
		dpi = DPI
	}
	if !(dpi >= 250 && dpi <= 2000) {
		return 0, 0, fmt.Errorf("%w: %g dpi: a reader has 250 to 2000", ErrFormat, dpi)
	}
	scale := DPI / dpi
	w, h = int(float64(im.Width)*scale+0.5), int(float64(im.Height)*scale+0.5)
	if min(w, h) < 32 || max(w, h) > 4096 {
		return 0, 0, fmt.Errorf("%w: %d x %d pixels at %g dpi: a print is 32 to 4096 pixels wide and high at %d", ErrFormat, im.Width, im.Height, dpi, DPI)
	}
	if w <= p.extract.w && h <= p.extract.h {
		kernels.Gray(p.gray, w, h, im)
		return w, h, nil
	}
	if len(p.spare) < w*h {
		p.spare = make([]byte, w*h)
	}
	kernels.Gray(p.spare, w, h, im)
	cw, ch := min(w, p.extract.w), min(h, p.extract.h)
	x0, y0 := middle(p.spare, w, h, cw, ch)
	for y := range ch {
		copy(p.gray[y*cw:][:cw], p.spare[(y0+y)*w+x0:])
	}
	return cw, ch, nil
}

// ExtractInput writes what the first stage would read of the frame into dst, which has the size of its input tensor: for
// those who calibrate or measure the model on its own. dpi is as for Process.
func (p *Pipeline) ExtractInput(dst []float32, f *sensors.Frame, dpi float64) error {
	if len(dst) != p.extract.w*p.extract.h {
		return fmt.Errorf("input of stage %s has %d values, not %d", StageExtract, p.extract.w*p.extract.h, len(dst))
	}
	im, err := infer.ViewFrame(f)
	if err != nil {
		return err
	}
	w, h, err := p.prepare(&im, dpi)
	if err != nil {
		return err
	}
	p.extract.fill(&p.norm, dst, p.gray, w, h)
	return nil
}

// Close frees the engines and wipes what they saw.
func (p *Pipeline) Close() error {
	var errs []error
	if p.extract != nil {
		clear(p.extract.found[:cap(p.extract.found)])
		errs = append(errs, p.extract.model.Close())
	}
	if p.describe != nil {
		errs = append(errs, p.describe.model.Close())
	}
	clear(p.gray)
	clear(p.spare)
	return errors.Join(errs...)
}
