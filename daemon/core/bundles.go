package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/store"
)

// modality is how bundles of one modality are judged before they are taken.
type modality struct {
	// check says whether the manifest describes a pipeline that there is, without files or a runtime.
	check func(*infer.Manifest) error
	// trial brings the pipeline up, so that every model runs once, and takes it down again.
	trial func(ctx context.Context, rt infer.Runtime, m *infer.Model) error
}

// modalities holds the pipelines of this version. A bundle of another modality is not imported, for nobody could run it.
var modalities = map[string]modality{
	"face": {check: face.Check, trial: func(ctx context.Context, rt infer.Runtime, m *infer.Model) error {
		p, err := face.New(ctx, rt, m)
		if err != nil {
			return err
		}
		return p.Close()
	}},
}

// modalityOf returns the pipeline for a bundle. Errors: ErrModality.
func modalityOf(m *infer.Manifest) (modality, error) {
	p, ok := modalities[m.Modality]
	if !ok {
		return p, fmt.Errorf("bundle %s: %w: it is for %q, this version runs %s", m.ID, ErrModality, m.Modality,
			strings.Join(slices.Sorted(maps.Keys(modalities)), ", "))
	}
	return p, p.check(m)
}

// openModels brings up the runtime and the bundles in use. A device whose models cannot be used is degraded and recognises
// nobody, but its people can be listed and erased, its store checked, and its bundles exchanged. Start refuses to run with
// models that are there and wrong.
func (a *Appliance) openModels(ctx context.Context) error {
	if a.runtime == nil {
		rt, err := ort.Open(ort.Options{Library: a.cfg.Runtime.Library, Threads: a.cfg.Runtime.Threads})
		if errors.Is(err, ort.ErrNoLibrary) {
			a.unready = err
			a.health.degrade("runtime", err)
			return nil
		}
		if err != nil {
			return err
		}
		a.runtime = rt
	}
	err := a.loadModels(ctx)
	if ctx.Err() != nil {
		return err
	}
	if err != nil {
		a.unready = err
		a.health.degrade("model", err)
	}
	return nil
}

// startable is why the appliance must not run: models that are there but cannot be used as configured. Without any it
// runs, degraded, and waits for them.
func (a *Appliance) startable() error {
	if a.unready == nil || errors.Is(a.unready, ErrNoModel) || errors.Is(a.unready, ort.ErrNoLibrary) {
		return nil
	}
	return a.unready
}

// loadModels loads the bundles in use, one a modality.
func (a *Appliance) loadModels(ctx context.Context) error {
	if id := a.cfg.Models.Finger; id != "" {
		if _, ok := modalities["finger"]; !ok {
			return fmt.Errorf("models.finger = %q: %w: this version runs no finger bundles: remove the key from the configuration", id, ErrModality)
		}
	}
	m, err := a.choose("face", a.cfg.Models.Face)
	if err != nil {
		return err
	}
	if m == nil {
		return ErrNoModel
	}
	return a.useFace(ctx, m)
}

// choose finds the bundle of a modality that is to be used: the configured one, else the only one that there is; nil if
// there is none. Errors: ErrModelChoice, which names the bundles to choose from, and those of a bundle that does not open.
func (a *Appliance) choose(kind, configured string) (*infer.Model, error) {
	if configured != "" {
		m, err := a.vault.Load(configured)
		if err == nil && m.Manifest.Modality != kind {
			err = fmt.Errorf("models.%s = %q: %w: it is a bundle for %q", kind, configured, ErrModelChoice, m.Manifest.Modality)
		}
		return m, err
	}
	ids, err := a.vault.IDs()
	if err != nil {
		return nil, err
	}
	var found []*infer.Model
	var names []string
	for _, id := range ids {
		m, err := a.vault.Load(id)
		if err != nil {
			return nil, err
		}
		if m.Manifest.Modality == kind {
			found, names = append(found, m), append(names, id)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %d %s bundles are imported (%s): choose one with models.%s in the configuration",
		ErrModelChoice, len(found), kind, strings.Join(names, ", "), kind)
}

// useFace brings up the pipeline of the face bundle in use, and the gallery and policy with it.
func (a *Appliance) useFace(ctx context.Context, m *infer.Model) error {
	pipe, err := face.New(ctx, a.runtime, m)
	if err != nil {
		return err
	}
	id := m.Manifest.ID
	if err := setLiveness(pipe, a.cfg.Policy, id); err != nil {
		return errors.Join(err, pipe.Close())
	}
	gallery := a.store.Gallery(id)
	if err := gallery.Accepts(id, pipe.Dimension()); err != nil {
		return errors.Join(err, pipe.Close())
	}
	a.pipe, a.result, a.gallery = pipe, pipe.NewResult(), gallery
	a.matches = make([]store.Match, 0, 1)
	a.policy = makePolicy(a.cfg.Policy, m.Manifest)
	a.health.recover("model")
	return nil
}

// setLiveness makes the pipeline follow the policy. Errors: ErrNoLiveness.
func setLiveness(p *face.Pipeline, c config.Policy, id string) error {
	if c.Liveness != config.LivenessRequired {
		p.SkipLiveness()
		return nil
	}
	err := p.RequireLiveness(float32(c.LivenessThreshold))
	if errors.Is(err, face.ErrNoLiveness) {
		return fmt.Errorf("%w, but bundle %s has no liveness stage: import one that has (`vigild models import --preset face-liveness DIR`) and choose it with models.face, or set policy.liveness = \"off\"", ErrNoLiveness, id)
	}
	return err
}

// makePolicy completes the configured policy from the bundle.
func makePolicy(c config.Policy, m *infer.Manifest) decide.Policy {
	threshold := func(configured float64, own float32) float32 {
		if configured > 0 {
			return float32(configured)
		}
		return own
	}
	of := func(op decide.Operation) float32 { return m.Thresholds[string(op)].Score }
	p := decide.Policy{
		VerifyThreshold:    threshold(c.VerifyThreshold, of(decide.Verify)),
		IdentifyThreshold:  threshold(c.IdentifyThreshold, of(decide.Identify)),
		DuplicateThreshold: threshold(c.DuplicateThreshold, of(decide.Duplicate)),
		EnrollQuality:      float32(c.EnrollQuality), ProbeQuality: float32(c.ProbeQuality),
		EnrollSamples: c.EnrollSamples, ConfirmFrames: c.ConfirmFrames, UnknownFrames: c.UnknownFrames,
		EventHold: time.Duration(c.EventHold), MaxFailures: c.MaxFailures,
		FailureWindow: time.Duration(c.FailureWindow), Lockout: time.Duration(c.Lockout),
	}
	if c.Liveness == config.LivenessRequired {
		p.RequireLiveness, p.LivenessThreshold = true, threshold(c.LivenessThreshold, m.Liveness.Score)
	}
	return p
}

// inUse reports whether the device works with the bundle.
func (a *Appliance) inUse(id string) bool { return a.pipe != nil && a.pipe.ModelID() == id }

// openBundle is the model in a folder or a tar file at path. The returned function closes the file; the model's weights
// cannot be read after it.
func openBundle(path string, manifest *infer.Manifest) (*infer.Model, func() error, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		m, err := infer.FromDir(os.DirFS(path), manifest)
		return m, func() error { return nil }, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%w: neither a folder nor a file", infer.ErrTar)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := infer.OpenTar(f, info.Size())
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	m, err := infer.FromDir(dir, manifest)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return m, f.Close, nil
}
