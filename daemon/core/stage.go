package core

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer"
)

// ErrNoStage means that no bundle in use has that stage, or that the stage has no model.
var ErrNoStage = errors.New("no such stage in a bundle in use")

// StageRef names a model of a bundle in use.
type StageRef struct {
	Bundle, Stage   string
	Inputs, Outputs []infer.Tensor
	Runtime         string
}

// BundlesInUse are the ids of the bundles in use, in the order of modalities.
func (a *Appliance) BundlesInUse() (ids []string) {
	for _, u := range a.units() {
		if g := u.now(); g != nil {
			ids = append(ids, g.id)
		}
	}
	return ids
}

// Stages lists the models of the bundles in use, in the order of modalities and stages.
func (a *Appliance) Stages() ([]StageRef, error) {
	var list []StageRef
	for _, u := range a.units() {
		g := u.now()
		if g == nil {
			continue
		}
		m, _, err := a.loadBundle(g.id)
		if err != nil {
			return nil, err
		}
		for _, s := range m.Manifest.Stages {
			if s.File != "" {
				list = append(list, StageRef{m.Manifest.ID, s.Name, s.Inputs, s.Outputs, g.runtime.Name()})
			}
		}
	}
	return list, nil
}

// LoadStage loads the model of a stage a second time, beside the one that decides, so that whoever uses it holds nobody up.
// The caller closes the engine, before the appliance. Errors: ErrNoStage, those of the bundle and of the runtime.
func (a *Appliance) LoadStage(ctx context.Context, ref StageRef) (infer.Engine, error) {
	m, _, err := a.loadBundle(ref.Bundle)
	if err != nil {
		return nil, err
	}
	g := a.unitOf(m.Manifest).holding(ref.Bundle)
	if g == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoStage, ref.Bundle)
	}
	s := m.Manifest.Stage(ref.Stage)
	if s == nil || s.File == "" {
		return nil, fmt.Errorf("%w: %s.%s", ErrNoStage, ref.Bundle, ref.Stage)
	}
	w, err := m.Open(s.Choose(g.runtime.Dialects()).File)
	if err != nil {
		return nil, err
	}
	engine, err := g.runtime.Load(ctx, w.Bytes(), s.Inputs, s.Outputs)
	return engine, errors.Join(err, w.Close())
}
