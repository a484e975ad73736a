package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/eval"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/infer/vnni"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// maxWrittenScores bounds the comparisons whose scores are written beside the report.
const maxWrittenScores = 1_000_000

// bundleSystem is a bundle at one precision, loaded.
type bundleSystem struct {
	name, title string
	extractor   eval.Extractor
	pipe        *face.Pipeline // nil for fingers
}

// each loads the bundle at one precision after the other and calls f. Without a bundle it calls nothing.
func (e *evaluation) each(ctx context.Context, f func(s *bundleSystem) error) (err error) {
	o := e.o
	if !o.runsBundle() {
		return nil
	}
	dir, manifest, err := o.manifest()
	if err != nil {
		return err
	}
	var models []*infer.Model
	for _, precision := range o.precision { // all of them, before the work on the first
		m, err := eval.AtPrecision(manifest, precision, infer.DialectCPU)
		if err != nil {
			return err
		}
		model, err := infer.FromDir(dir, m)
		if err != nil {
			return fmt.Errorf("cannot use bundle %s: %w", m.ID, err)
		}
		models = append(models, model)
	}
	plain, err := ort.Open(ort.Options{Library: o.library, Threads: o.threads})
	if err != nil {
		return err
	}
	rt := vnni.Over(plain)
	defer func() { err = errors.Join(err, rt.Close()) }()
	for i, m := range models {
		if err := e.one(ctx, rt, m, o.precision[i], f); err != nil {
			return err
		}
	}
	return nil
}

// one loads a bundle at one precision and calls f.
func (e *evaluation) one(ctx context.Context, rt infer.Runtime, m *infer.Model, precision string, f func(s *bundleSystem) error) (err error) {
	b := &bundleSystem{name: precision, title: m.Manifest.ID + " at " + precision + " on " + rt.Name()}
	if m.Manifest.Modality == core.Finger {
		pipe, err := finger.New(ctx, rt, m)
		if err != nil {
			return err
		}
		b.extractor = eval.Fingers(pipe, decoder(), e.o.dpi)
		return errors.Join(f(b), pipe.Close())
	}
	if b.pipe, err = face.New(ctx, rt, m); err != nil {
		return err
	}
	b.extractor = eval.Faces(b.pipe, decoder())
	return errors.Join(f(b), b.pipe.Close())
}

// builtIn names the bundle in the binary.
const builtIn = "built-in"

// runsBundle reports whether the flags name a bundle.
func (o *evalOptions) runsBundle() bool { return o.models != "" || o.bundle != "" }

// manifest is that of the preset, of the folder's bundle.json or of the bundle in the binary, with the files.
func (o *evalOptions) manifest() (dir fs.FS, m *infer.Manifest, err error) {
	path, name := o.models, o.preset
	if o.bundle != "" {
		path, name = o.bundle, ""
	}
	dir = os.DirFS(path)
	if o.bundle == builtIn {
		if dir, err = builtin.FingerFiles(); err != nil {
			return nil, nil, err
		}
	}
	if name != "" {
		m, err = preset.Load(name)
		return dir, m, err
	}
	model, err := infer.FromDir(dir, nil)
	if err != nil {
		return dir, nil, fmt.Errorf("%s: %w", path, err)
	}
	return dir, model.Manifest, nil
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

// verify runs every system over protocols with the same samples and adds a section for each.
func (e *evaluation) verify(ctx context.Context, protocols []*eval.Protocol) error {
	progress := e.progress()
	runs := make([][]*eval.Run, len(protocols))
	err := e.each(ctx, func(s *bundleSystem) error {
		x := s.extractor
		a, err := eval.Acquire(ctx, protocols[0].Samples, x, progress)
		if err != nil {
			return err
		}
		for i, p := range protocols {
			r, err := a.Run(ctx, s.name, p, x, progress)
			if err != nil {
				return err
			}
			r.System = s.title
			runs[i] = append(runs[i], r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, p := range protocols {
		for _, arg := range e.o.scores {
			r, err := scoresFrom(arg, p)
			if err != nil {
				return err
			}
			runs[i] = append(runs[i], r)
		}
		v, err := eval.Verify(p, runs[i], eval.Options{Seed: e.o.seed, Replicates: e.o.replicates, Progress: progress})
		if err != nil {
			return err
		}
		e.report.Sections = append(e.report.Sections, eval.Section{Name: p.Name, Title: p.Title, Verification: v})
		if err := e.writeScores(p, runs[i]); err != nil {
			return err
		}
	}
	return nil
}

func scoresFrom(arg string, p *eval.Protocol) (*eval.Run, error) {
	return readNamed(arg, func(name string, r io.Reader) (*eval.Run, error) { return eval.ReadScores(name, p, r) })
}

// readNamed reads the file of a flag NAME=FILE, or FILE; an error of its content names the file.
func readNamed[T any](arg string, read func(name string, r io.Reader) (T, error)) (v T, err error) {
	name, path := named(arg)
	f, err := os.Open(path)
	if err != nil {
		return v, err
	}
	defer f.Close()
	if v, err = read(name, f); err != nil {
		return v, fmt.Errorf("%s: %w", path, err)
	}
	return v, nil
}

// writeScores writes the scores of a protocol that is not too large beside the report.
func (e *evaluation) writeScores(p *eval.Protocol, runs []*eval.Run) error {
	if e.o.out == "" || len(p.Comparisons) > maxWrittenScores {
		return nil
	}
	if err := os.MkdirAll(e.o.out, 0o755); err != nil {
		return err
	}
	for _, r := range runs {
		name := filepath.Join(e.o.out, p.Name+"-scores-"+filepath.Base(r.Name)+".csv")
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		if err := errors.Join(eval.WriteScores(f, p, r), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		e.files = append(e.files, filepath.Base(name))
	}
	return nil
}

// identify runs every precision over an identification protocol.
func (e *evaluation) identify(ctx context.Context, s *eval.Search) error {
	progress := e.progress()
	var runs []*eval.SearchRun
	err := e.each(ctx, func(b *bundleSystem) error {
		x := b.extractor
		a, err := eval.Acquire(ctx, s.Samples, x, progress)
		if err != nil {
			return err
		}
		r, err := s.Run(ctx, b.name, a, x, progress)
		if err == nil {
			r.System = b.title
			runs = append(runs, r)
		}
		return err
	})
	if err != nil {
		return err
	}
	v, err := eval.Identify(s, runs, eval.Options{Seed: e.o.seed, Replicates: e.o.replicates, Progress: progress})
	if err != nil {
		return err
	}
	e.report.Sections = append(e.report.Sections, eval.Section{Name: "identify", Title: "open-set identification", Identification: v})
	return nil
}

// livenessScore reads the likelihood of a bona fide presentation from a face.
func livenessScore(f *face.Face) (float64, bool) { return float64(f.Liveness), f.HasLiveness }

// liveness runs every precision over a list of presentations.
func (e *evaluation) liveness(ctx context.Context, list []eval.Presentation) error {
	progress := e.progress()
	var runs []*eval.LivenessRun
	err := e.each(ctx, func(b *bundleSystem) error {
		if b.pipe == nil {
			return fmt.Errorf("%s judges no liveness: name a face bundle that does", b.title)
		}
		x := eval.FaceLiveness(b.pipe, decoder(), livenessScore)
		r, err := eval.Present(ctx, b.name, e.o.pictures, list, x, progress)
		if err == nil {
			r.System = b.title
			runs = append(runs, r)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, arg := range e.o.scores {
		r, err := presentationsFrom(arg, list)
		if err != nil {
			return err
		}
		runs = append(runs, r)
	}
	thresholds := make([]float64, len(runs))
	for i := range thresholds {
		thresholds[i] = e.o.threshold
	}
	v, err := eval.Attacks(list, runs, thresholds, eval.Options{Seed: e.o.seed, Replicates: e.o.replicates, Progress: progress})
	if err != nil {
		return err
	}
	e.report.Sections = append(e.report.Sections, eval.Section{Name: "liveness", Title: "presentation attack detection", Attack: v})
	return nil
}

func presentationsFrom(arg string, list []eval.Presentation) (*eval.LivenessRun, error) {
	return readNamed(arg, func(name string, r io.Reader) (*eval.LivenessRun, error) {
		return eval.ReadPresentations(name, list, r)
	})
}
