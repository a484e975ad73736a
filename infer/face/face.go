// Package face is the pipeline from a frame to face templates: detect, align, quality, liveness, embed.
//
// Promises: stages run in that order, on tensors bound once; in steady state Process allocates nothing. At most MaxFaces
// faces of a frame are reported, largest first, and only those are embedded. Liveness is optional: a bundle without it
// gives no scores, and with RequireLiveness a face that fails it is reported as an attack and never embedded. Every stage
// is timed against its deadline, and the context is checked between stages.
//
// A Pipeline serves one goroutine at a time and blocks while its engines run; it owns engines and tensors, borrows the
// frame, and fills a Result that the caller owns and may reuse. It does not compare, decide or store anything, and a
// template it gives is not wiped by it: the Result's owner calls Wipe.
package face

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vigil/infer"
	"vigil/kernels"
	"vigil/kernels/cpu"
	"vigil/sensors"
)

// MaxFaces bounds the faces reported per frame.
const MaxFaces = 8

// Kinds of stages, in order.
const (
	StageDetect   = "detect"
	StageAlign    = "align"
	StageQuality  = "quality"
	StageLiveness = infer.KindLiveness
	StageEmbed    = "embed"
)

// order of the stages; the numbers are those of Result.Timings.
var order = [...]string{detectAt: StageDetect, alignAt: StageAlign, qualityAt: StageQuality, livenessAt: StageLiveness, embedAt: StageEmbed}

const (
	detectAt = iota
	alignAt
	qualityAt
	livenessAt
	embedAt
	stages
)

// Face is one face of a frame. Coordinates are pixels of the frame.
type Face struct {
	Box       [4]float32  // x, y, width, height
	Points    [10]float32 // x,y of right eye, left eye, nose, right and left mouth corner (the person's right)
	Landmarks bool        // Points were found; else they are only where they lie in an average face of this box
	Score     float32     // of the detector, 0..1
	Quality   Quality
	Liveness  float32 // likelihood of a bona fide presentation, 0..1, if HasLiveness
	// HasLiveness: the bundle has a liveness stage and it was not skipped.
	HasLiveness bool
	Attack      bool   // liveness is required and too low: a presentation attack (ISO/IEC 30107-3); there is no template
	Values      []int8 // template: symmetric int8, of the bundle's dimension; empty if the face was not embedded
	Scale       float32
}

// Result is what one frame gave. Its slices are reused by the next Process with the same Result.
type Result struct {
	Faces []Face
	// Timings per kind of stage, in order, summed over the faces; a kind that the bundle lacks or that was skipped has no
	// deadline.
	Timings [stages]infer.Timing
	Total   time.Duration
	Seen    int // faces found, including those over MaxFaces
	values  []int8
}

// Wipe overwrites the templates.
func (r *Result) Wipe() {
	clear(r.values)
	r.Faces = r.Faces[:0]
}

// Pipeline turns frames into faces with templates.
type Pipeline struct {
	manifest *infer.Manifest
	detect   *detector
	align    *aligner
	live     *liveness // nil if the bundle has none
	embed    *embedder
	budget   [stages]time.Duration
	found    []candidate
	warp     cpu.Warper
	look     *examiner
}

// ErrNoLiveness means that the bundle has no liveness stage.
var ErrNoLiveness = errors.New("the bundle has no liveness stage")

// Check says whether a manifest describes a face pipeline: its stages, steps and parameters, as far as that can be said
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
	p = &Pipeline{manifest: m, found: make([]candidate, 0, maxCandidates)}
	of, err := p.kinds()
	if err != nil {
		return p, err
	}
	if p.align, err = newAligner(of[alignAt]); err != nil {
		return p, err
	}
	if p.detect, err = newDetector(of[detectAt], p.align.landmarks); err != nil {
		return p, err
	}
	if p.live, err = newLiveness(m); err != nil {
		return p, err
	}
	if p.embed, err = newEmbedder(of[embedAt], p.align, m.Template.Dimension); err != nil {
		return p, err
	}
	p.look = newExaminer(p.align.size, &p.embed.norm)
	return p, nil
}

// kinds finds the stage of each kind that there must be one of, and adds up the budgets.
func (p *Pipeline) kinds() (of [stages]*infer.Stage, err error) {
	m := p.manifest
	if m.Template.Type != "int8" {
		return of, fmt.Errorf("template.type %q: a face bundle gives \"int8\"", m.Template.Type)
	}
	for i, kind := range order {
		list := m.StagesOf(kind)
		switch {
		case len(list) == 0 && kind != StageLiveness:
			return of, fmt.Errorf("stage %q is missing: a face bundle has %v, liveness if it can", kind, order)
		case len(list) > 1 && kind != StageLiveness:
			return of, fmt.Errorf("%d stages are of kind %q: only liveness is fused from several", len(list), kind)
		case len(list) == 1:
			of[i] = list[0]
		}
		for _, s := range list {
			p.budget[i] += s.Deadline()
		}
	}
	for i := range m.Stages {
		s := &m.Stages[i]
		switch kind := s.KindOf(); {
		case at(kind) < 0:
			return of, fmt.Errorf("stage %s: unknown kind %q: a face bundle has %v", s.Name, kind, order)
		case (kind == StageAlign || kind == StageQuality) && s.File != "":
			return of, fmt.Errorf("stage %s: takes no model", s.Name)
		}
	}
	return of, nil
}

// at is the place of a kind in the order; -1 if there is none.
func at(kind string) int {
	for i, k := range order {
		if k == kind {
			return i
		}
	}
	return -1
}

func (p *Pipeline) load(ctx context.Context, rt infer.Runtime, m *infer.Model) (err error) {
	if p.detect.Loaded, err = infer.LoadStage(ctx, rt, m, p.detect.stage); err != nil {
		return err
	}
	if p.live != nil {
		if err = p.live.load(ctx, rt, m); err != nil {
			return err
		}
	}
	p.embed.Loaded, err = infer.LoadStage(ctx, rt, m, p.embed.stage)
	return err
}

// Share is a pipeline over the same engines with tensors of its own, for one more goroutine; it follows the same rule about
// liveness. Each of the two is closed by its owner, in any order.
func (p *Pipeline) Share() (*Pipeline, error) {
	n, err := configure(p.manifest)
	if err == nil {
		n.detect.Loaded, err = p.detect.Share()
	}
	if err == nil && p.live != nil {
		err = n.live.share(p.live)
	}
	if err == nil {
		n.embed.Loaded, err = p.embed.Share()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot share bundle %s: %w", p.manifest.ID, err), n.Close())
	}
	return n, nil
}

// ModelID is the id under which the pipeline's templates may be compared.
func (p *Pipeline) ModelID() string { return p.manifest.ID }

// Dimension is the number of values of a template.
func (p *Pipeline) Dimension() int { return p.manifest.Template.Dimension }

// Choices says which file each stage with a model runs, and why.
func (p *Pipeline) Choices() []infer.Choice {
	list := []infer.Choice{p.detect.Choice}
	if p.live != nil {
		for i := range p.live.models {
			list = append(list, p.live.models[i].Choice)
		}
	}
	return append(list, p.embed.Choice)
}

// HasLiveness reports whether the bundle can tell bona fide presentations from attacks.
func (p *Pipeline) HasLiveness() bool { return p.live != nil }

// SkipLiveness makes Process leave out the liveness stages from now on: no score, no time spent.
func (p *Pipeline) SkipLiveness() {
	if p.live != nil {
		p.live.skip = true
	}
}

// RequireLiveness makes Process report faces whose liveness is below the threshold as attacks and not embed them.
// Without it the score is reported and every face is embedded. A threshold of 0 is the bundle's own. Errors: ErrNoLiveness.
func (p *Pipeline) RequireLiveness(threshold float32) error {
	if p.live == nil {
		return ErrNoLiveness
	}
	if threshold == 0 {
		threshold = p.manifest.Liveness.Score
	}
	p.live.skip, p.live.least = false, threshold
	return nil
}

// NewResult returns a Result with room for everything Process can report, so that no frame makes it grow.
func (p *Pipeline) NewResult() *Result {
	return &Result{Faces: make([]Face, 0, MaxFaces), values: make([]int8, MaxFaces*p.Dimension())}
}

// ErrFormat means that the frame's pixels cannot be read by the pipeline.
var ErrFormat = infer.ErrFormat

// Process finds the faces of a frame and makes their templates. It returns an error wrapping ErrFormat for a frame that
// is malformed, the context's error when time is up, or the engine's. r then holds no faces.
func (p *Pipeline) Process(ctx context.Context, f *sensors.Frame, r *Result) error {
	start := time.Now()
	r.Faces, r.Seen = r.Faces[:0], 0
	for i, kind := range order {
		r.Timings[i] = infer.Timing{Stage: kind, Deadline: p.budget[i]}
	}
	if p.live == nil || p.live.skip {
		r.Timings[livenessAt].Deadline = 0
	}
	im, err := infer.ViewFrame(f)
	if err != nil {
		return err
	}
	p.found, err = p.detect.run(ctx, &im, p.found[:0])
	r.Timings[detectAt].Took = time.Since(start)
	if err != nil {
		return err
	}
	r.Seen = len(p.found)
	for i := range min(len(p.found), MaxFaces) {
		if err := p.one(ctx, &im, &p.found[i], r); err != nil {
			r.Wipe()
			return err
		}
	}
	r.Total = time.Since(start)
	return nil
}

// one aligns, judges and embeds a face and appends it to r.
func (p *Pipeline) one(ctx context.Context, im *kernels.Image, c *candidate, r *Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	face := Face{Box: c.box, Points: c.points, Landmarks: c.landmarks, Score: c.score}
	t := time.Now()
	toSrc, ok := p.align.transform(&face)
	if !ok {
		return nil // five points in one place: a false detection
	}
	crop := p.embed.IO.Input(0)
	p.warp.Warp(crop, p.align.size, p.align.size, im, toSrc, &p.embed.norm)
	r.Timings[alignAt].Took += lap(&t)
	face.Quality = p.look.judge(crop, &face)
	face.Quality.Components = p.look.measure(crop, &face, toSrc, im.Width, im.Height)
	r.Timings[qualityAt].Took += lap(&t)
	if p.live != nil && !p.live.skip {
		err := p.live.judge(ctx, im, &face)
		r.Timings[livenessAt].Took += lap(&t)
		if err != nil {
			return err
		}
	}
	if !face.Attack {
		face.Values = r.values[len(r.Faces)*p.Dimension():][:p.Dimension():p.Dimension()]
		scale, err := p.embed.run(ctx, face.Values)
		r.Timings[embedAt].Took += lap(&t)
		if err != nil {
			return err
		}
		face.Scale = scale
	}
	r.Faces = append(r.Faces, face)
	return nil
}

func lap(t *time.Time) time.Duration {
	now := time.Now()
	d := now.Sub(*t)
	*t = now
	return d
}

// Close frees the engines and wipes the tensors.
func (p *Pipeline) Close() error {
	p.warp.Wipe()
	if p.look != nil {
		p.look.ellipse.Wipe()
	}
	var errs []error
	if p.detect != nil {
		errs = append(errs, p.detect.Close())
	}
	if p.live != nil {
		errs = append(errs, p.live.close())
	}
	if p.embed != nil {
		errs = append(errs, p.embed.close())
	}
	return errors.Join(errs...)
}
