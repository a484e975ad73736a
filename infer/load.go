package infer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Loaded is the model of one stage, ready to run: its engine with one bound set of tensors. Its owner closes it.
type Loaded struct {
	IO     IO
	Choice Choice
	engine *shared
}

// shared is an engine and how many Loadeds have it; the last closes it.
type shared struct {
	Engine
	users atomic.Int32
}

func (s *shared) release() error {
	if s == nil || s.users.Add(-1) > 0 {
		return nil
	}
	return s.Engine.Close()
}

// Share is the same engine with tensors of its own, for one more pipeline: weights are held once. Each is closed by its
// owner, in any order.
func (l *Loaded) Share() (*Loaded, error) {
	l.engine.users.Add(1)
	s := &Loaded{Choice: l.Choice, engine: l.engine}
	var err error
	if s.IO, err = l.engine.NewIO(); err != nil {
		return nil, errors.Join(fmt.Errorf("stage %s, file %s: %w", l.Choice.Stage, l.Choice.File, err), s.Close())
	}
	return s, nil
}

// LoadStage makes the engine of a stage from the file that the runtime prefers (see Stage.Choose), binds one IO and runs
// it once with zeros, so that a model that loads but cannot run is refused here. Weights are held only while the runtime
// reads them. Errors name the stage, the file and what is wrong.
func LoadStage(ctx context.Context, rt Runtime, m *Model, s *Stage) (*Loaded, error) {
	if s.File == "" {
		return nil, fmt.Errorf("stage %s: has no model", s.Name)
	}
	return loadFile(ctx, rt, m, s, s.Choose(rt.Dialects()))
}

func loadFile(ctx context.Context, rt Runtime, m *Model, s *Stage, c Choice) (_ *Loaded, err error) {
	l := &Loaded{Choice: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	w, err := m.Open(c.File)
	if err != nil {
		return nil, err
	}
	engine, err := rt.Load(ctx, w.Bytes(), s.Inputs, s.Outputs)
	if engine != nil {
		l.engine = &shared{Engine: engine}
		l.engine.users.Store(1)
		if e, ok := engine.(Explained); ok {
			l.Choice.Kernels = e.Kernels()
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("stage %s, file %s: %w", s.Name, c.File, err)
	}
	if l.IO, err = l.engine.NewIO(); err != nil {
		return nil, fmt.Errorf("stage %s, file %s: %w", s.Name, c.File, err)
	}
	if err = l.IO.Run(ctx); err != nil {
		return nil, fmt.Errorf("stage %s: %s loads, but its warm-up run fails: this model cannot be used: %w", s.Name, c.File, err)
	}
	return l, nil
}

// Close frees the tensors, then the engine, if nobody shares it any more. It may be called on nil.
func (l *Loaded) Close() error {
	if l == nil {
		return nil
	}
	var errs []error
	if l.IO != nil {
		errs = append(errs, l.IO.Close())
	}
	errs = append(errs, l.engine.release())
	return errors.Join(errs...)
}

// WarmUp loads, runs once and frees every file that the runtime may ever load for a stage of the bundle: what it prefers,
// and the float file that it falls back to. report is told of each, with the time it took and what failed, and ends the
// work by an error, which WarmUp returns.
func WarmUp(ctx context.Context, rt Runtime, m *Model, report func(c Choice, took time.Duration, err error) error) error {
	for i := range m.Manifest.Stages {
		s := &m.Manifest.Stages[i]
		if s.File == "" {
			continue
		}
		choices := []Choice{s.Choose(rt.Dialects())}
		if choices[0].File != s.File {
			float := s.Choose(nil)
			float.Reason = "what is left if the variant is not to be used"
			choices = append(choices, float)
		}
		for _, c := range choices {
			start := time.Now()
			l, err := loadFile(ctx, rt, m, s, c)
			err = errors.Join(err, l.Close())
			if err := report(c, time.Since(start), err); err != nil {
				return err
			}
		}
	}
	return nil
}

// Choices says for every stage with a model which file the runtime loads.
func (m *Manifest) Choices(preferred []string) []Choice {
	list := []Choice{}
	for i := range m.Stages {
		if m.Stages[i].File != "" {
			list = append(list, m.Stages[i].Choose(preferred))
		}
	}
	return list
}

// Inspector is a Runtime that can say which tensors a model has, -1 for sizes that the model leaves open.
type Inspector interface {
	Inspect(onnx []byte) (inputs, outputs []Tensor, err error)
}

// Complete fills in what a preset left open, from the files: names of tensors (files are pinned by FromDir already). The
// manifest is then one that ParseManifest accepts. For a complete manifest it does nothing. The runtime must be an
// Inspector if there is something to fill in.
func (m *Model) Complete(rt Runtime) error {
	filled := false
	for i := range m.Manifest.Stages {
		s := &m.Manifest.Stages[i]
		if !s.open() {
			continue
		}
		filled = true
		in, ok := rt.(Inspector)
		if !ok {
			return fmt.Errorf("stage %s: runtime %s cannot name the tensors that the preset leaves open", s.Name, rt.Name())
		}
		if err := m.complete(in, s); err != nil {
			return fmt.Errorf("stage %s, file %s: %w", s.Name, s.File, err)
		}
	}
	if !filled {
		return nil
	}
	return m.Manifest.Validate()
}

func (m *Model) complete(rt Inspector, s *Stage) error {
	w, err := m.Open(s.File)
	if err != nil {
		return err
	}
	inputs, outputs, err := rt.Inspect(w.Bytes())
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return errors.Join(nameTensor("input", s.Inputs, inputs), nameTensor("output", s.Outputs, outputs))
}

// nameTensor gives the open tensor of one side its name.
func nameTensor(side string, want, have []Tensor) error {
	if want[0].Name != AnyName {
		return nil
	}
	if len(have) != 1 {
		return fmt.Errorf("the model has %d %ss, the preset takes models with one", len(have), side)
	}
	want[0].Name = have[0].Name
	return nil
}
