// Package face is the pipeline from a frame to face templates: detect, quality, align, embed.
//
// Promises: stages run in the order of the bundle, on tensors bound once; in steady state Process allocates nothing. At
// most MaxFaces faces of a frame are reported, largest first, and only those are embedded. Every stage is timed against
// its deadline, and the context is checked between stages.
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
	"vigil/sensors"
)

// MaxFaces bounds the faces reported per frame.
const MaxFaces = 8

// Stage names, in order.
const (
	StageDetect  = "detect"
	StageAlign   = "align"
	StageQuality = "quality"
	StageEmbed   = "embed"
)

var order = []string{StageDetect, StageAlign, StageQuality, StageEmbed}

// Face is one face of a frame. Coordinates are pixels of the frame.
type Face struct {
	Box     [4]float32  // x, y, width, height
	Points  [10]float32 // x,y of right eye, left eye, nose, right and left mouth corner (the person's right)
	Score   float32     // of the detector, 0..1
	Quality Quality
	Values  []int8  // template: symmetric int8, of the bundle's dimension; empty if the face was not embedded
	Scale   float32 // makes Values a vector of unit length
}

// Result is what one frame gave. Its slices are reused by the next Process with the same Result.
type Result struct {
	Faces   []Face
	Timings [stages]infer.Timing // per stage, in order; embed and the like summed over the faces
	Total   time.Duration
	Seen    int // faces found, including those over MaxFaces
	values  []int8
}

const stages = 4

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
	embed    *embedder
	budget   [stages]time.Duration
	found    []candidate
}

// New loads the engines of the bundle on the runtime and runs each once, so that a model that loads but cannot run is
// refused here.
func New(ctx context.Context, rt infer.Runtime, m *infer.Model) (*Pipeline, error) {
	p := &Pipeline{manifest: m.Manifest, found: make([]candidate, 0, maxCandidates)}
	if err := p.load(ctx, rt, m); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot load bundle %s: %w", m.Manifest.ID, err), p.Close())
	}
	return p, nil
}

func (p *Pipeline) load(ctx context.Context, rt infer.Runtime, m *infer.Model) (err error) {
	for i, name := range order {
		s := m.Manifest.Stage(name)
		if s == nil {
			return fmt.Errorf("stage %q is missing: a face bundle has %v", name, order)
		}
		p.budget[i] = s.Deadline()
	}
	if p.align, err = newAligner(m.Manifest.Stage(StageAlign)); err != nil {
		return err
	}
	if p.detect, err = newDetector(ctx, rt, m, m.Manifest.Stage(StageDetect)); err != nil {
		return err
	}
	p.embed, err = newEmbedder(ctx, rt, m, m.Manifest.Stage(StageEmbed))
	return err
}

// load makes the engine of a stage with one bound IO and warms it up with zeros.
func load(ctx context.Context, rt infer.Runtime, m *infer.Model, s *infer.Stage) (eng infer.Engine, io infer.IO, err error) {
	w, err := m.Open(s.File)
	if err != nil {
		return nil, nil, err
	}
	eng, err = rt.Load(ctx, w.Bytes(), s.Inputs, s.Outputs)
	if err = errors.Join(err, w.Close()); err != nil {
		return eng, nil, fmt.Errorf("stage %s, file %s: %w", s.Name, s.File, err)
	}
	if io, err = eng.NewIO(); err != nil {
		return eng, nil, fmt.Errorf("stage %s, file %s: %w", s.Name, s.File, err)
	}
	if err = io.Run(ctx); err != nil {
		return eng, io, fmt.Errorf("stage %s: %s loads, but its warm-up run fails: this model cannot be used: %w", s.Name, s.File, err)
	}
	return eng, io, nil
}

// ModelID is the id under which the pipeline's templates may be compared.
func (p *Pipeline) ModelID() string { return p.manifest.ID }

// Dimension is the number of values of a template.
func (p *Pipeline) Dimension() int { return p.manifest.Template.Dimension }

// NewResult returns a Result with room for everything Process can report, so that no frame makes it grow.
func (p *Pipeline) NewResult() *Result {
	return &Result{Faces: make([]Face, 0, MaxFaces), values: make([]int8, MaxFaces*p.Dimension())}
}

// ErrFormat means that the frame's pixels cannot be read by the pipeline.
var ErrFormat = errors.New("frame cannot be processed")

// Process finds the faces of a frame and makes their templates. It returns an error wrapping ErrFormat for a frame that
// is malformed, the context's error when time is up, or the engine's. r then holds no faces.
func (p *Pipeline) Process(ctx context.Context, f *sensors.Frame, r *Result) error {
	start := time.Now()
	r.Faces, r.Seen = r.Faces[:0], 0
	for i, name := range order {
		r.Timings[i] = infer.Timing{Stage: name, Deadline: p.budget[i]}
	}
	im, err := image(f)
	if err != nil {
		return err
	}
	p.found, err = p.detect.run(ctx, &im, p.found[:0])
	r.Timings[0].Took = time.Since(start)
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
	n := len(r.Faces)
	face := Face{Box: c.box, Points: c.points, Score: c.score}
	t := time.Now()
	toSrc, ok := p.align.transform(&face.Points)
	if !ok {
		return nil // five points in one place: a false detection
	}
	kernels.Warp(p.embed.io.Input(0), p.align.w, p.align.h, im, toSrc, &p.embed.norm)
	r.Timings[1].Took += lap(&t)
	face.Quality = judge(p.embed.io.Input(0), p.align.w, p.align.h, &p.embed.norm, &face)
	r.Timings[2].Took += lap(&t)
	face.Values = r.values[n*p.Dimension():][:p.Dimension():p.Dimension()]
	scale, err := p.embed.run(ctx, face.Values)
	r.Timings[3].Took += lap(&t)
	if err != nil {
		return err
	}
	face.Scale = scale
	r.Faces = append(r.Faces, face)
	return nil
}

func lap(t *time.Time) time.Duration {
	now := time.Now()
	d := now.Sub(*t)
	*t = now
	return d
}

// image views a frame as the kernels do.
func image(f *sensors.Frame) (kernels.Image, error) {
	im := kernels.Image{Width: f.Width, Height: f.Height, FullRange: f.FullRange}
	switch f.Format {
	case sensors.Gray8:
		im.Format = kernels.Gray8
	case sensors.RGB24:
		im.Format = kernels.RGB24
	case sensors.NV12:
		im.Format = kernels.NV12
	case sensors.YUYV:
		im.Format = kernels.YUYV
	default:
		return im, fmt.Errorf("%w: sensor %s, frame %d: format %v must be decoded first", ErrFormat, f.Sensor, f.Seq, f.Format)
	}
	for i, pl := range f.Planes {
		im.Planes[i] = kernels.Plane{Data: pl.Data, StrideBytes: pl.StrideBytes}
	}
	if err := im.Check(); err != nil {
		return im, fmt.Errorf("%w: sensor %s, frame %d: %w", ErrFormat, f.Sensor, f.Seq, err)
	}
	return im, nil
}

// Close frees the engines and wipes the tensors.
func (p *Pipeline) Close() error {
	var errs []error
	if p.detect != nil {
		errs = append(errs, p.detect.close())
	}
	if p.embed != nil {
		errs = append(errs, p.embed.close())
	}
	return errors.Join(errs...)
}

// closeBoth closes an IO, then its engine; either may be nil.
func closeBoth(io infer.IO, eng infer.Engine) error {
	var errs []error
	if io != nil {
		errs = append(errs, io.Close())
	}
	if eng != nil {
		errs = append(errs, eng.Close())
	}
	return errors.Join(errs...)
}
