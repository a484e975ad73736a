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
	"vigil/infer/builtin"
	"vigil/infer/chain"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/ort"
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
	Face: {check: face.Check, trial: func(ctx context.Context, rt infer.Runtime, m *infer.Model) error {
		p, err := face.New(ctx, rt, m)
		if err != nil {
			return err
		}
		return p.Close()
	}},
	Finger: {check: finger.Check, trial: func(ctx context.Context, rt infer.Runtime, m *infer.Model) error {
		p, err := finger.New(ctx, rt, m)
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
		rt, verdicts, err := chain.Open(ctx, a.links)
		a.verdicts = verdicts
		if errors.Is(err, ort.ErrNoLibrary) {
			err = a.noLibrary(err)
			a.unready = err
			a.face.setUnready(err)
			a.finger.setUnready(err)
			a.health.degrade("runtime", err)
			return nil
		}
		if err != nil {
			return err
		}
		a.runtime = rt
	}
	for _, u := range a.units() {
		err := u.load(ctx)
		if ctx.Err() != nil {
			return err
		}
		u.setUnready(err)
		if err != nil && !errors.Is(err, ErrOff) {
			a.health.degrade("model", err)
		}
	}
	return nil
}

// startable is why the appliance must not run: models that are there but cannot be used as configured. Without any it
// runs, degraded, and waits for them.
func (a *Appliance) startable() error {
	for _, u := range a.units() {
		if u.now() != nil {
			continue
		}
		if err := u.why(); !errors.Is(err, ErrNoModel) && !errors.Is(err, ort.ErrNoLibrary) && !errors.Is(err, ErrOff) {
			return err
		}
	}
	return nil
}

// off as the name of a bundle switches the modality off.
const off = "off"

// load brings up the bundle in use. Errors: ErrOff, ErrNoModel, ErrModelChoice, ErrNoLiveness, those of the bundle.
func (u *Unit) load(ctx context.Context) error {
	a := u.app
	configured := a.configured(u.kind)
	if configured == off {
		return fmt.Errorf("models.%s is \"off\": %w", u.kind, ErrOff)
	}
	m, err := a.choose(u.kind, configured)
	if err != nil {
		return err
	}
	own := m == nil && u.kind == Finger
	if own {
		if m, err = builtin.Finger(); err != nil {
			return err
		}
	}
	if m == nil {
		return ErrNoModel
	}
	g, err := u.raise(ctx, m, own)
	if err != nil {
		return err
	}
	u.slot.Swap(g)
	u.readCurve(g)
	return u.raiseElder(ctx)
}

// unitOf is the unit of a bundle's modality, which is one of this version.
func (a *Appliance) unitOf(m *infer.Manifest) *Unit {
	if m.Modality == Finger {
		return a.finger
	}
	return a.face
}

// inUseBy is the modality that works with the bundle.
func (a *Appliance) inUseBy(id string) string {
	if a.finger.uses(id) {
		return Finger
	}
	return Face
}

// choose finds the bundle of a modality that is to be used: the configured one, else the one that SwapModel chose last, else
// the only one that there is; nil if there is none. Errors: ErrModelChoice, which names the bundles to choose from, and those of a bundle that does not open.
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
	kept, err := a.keptChoice(kind)
	if err != nil {
		return nil, err
	}
	if slices.Contains(ids, kept) {
		return a.vault.Load(kept)
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

// basePolicy is what does not depend on a bundle.
func basePolicy(c config.Policy) decide.Policy {
	return decide.Policy{
		EnrollQuality: float32(c.EnrollQuality), ProbeQuality: float32(c.ProbeQuality),
		EnrollSamples: c.EnrollSamples, ConfirmFrames: c.ConfirmFrames, UnknownFrames: c.UnknownFrames,
		EventHold: time.Duration(c.EventHold), MaxFailures: c.MaxFailures,
		FailureWindow: time.Duration(c.FailureWindow), Lockout: time.Duration(c.Lockout),
	}
}

// configuredOr is the configured score, or the bundle's own for 0.
func configuredOr(configured float64, own float32) float32 {
	if configured > 0 {
		return float32(configured)
	}
	return own
}

// makePolicy completes the configured policy for faces from the bundle.
func makePolicy(c config.Policy, m *infer.Manifest) decide.Policy {
	of := func(op decide.Operation) float32 { return m.Thresholds[string(op)].Score }
	p := basePolicy(c)
	p.VerifyThreshold = configuredOr(c.VerifyThreshold, of(decide.Verify))
	p.IdentifyThreshold = configuredOr(c.IdentifyThreshold, of(decide.Identify))
	p.DuplicateThreshold = configuredOr(c.DuplicateThreshold, of(decide.Duplicate))
	if c.Liveness == config.LivenessRequired {
		p.RequireLiveness, p.LivenessThreshold = true, configuredOr(c.LivenessThreshold, m.Liveness.Score)
	}
	return p
}

// fingerPolicy completes the configured policy for fingers from the bundle. Their liveness is not judged.
func fingerPolicy(c config.Policy, m *infer.Manifest) decide.Policy {
	of := func(op decide.Operation) float32 { return m.Thresholds[string(op)].Score }
	p := basePolicy(c)
	p.EnrollQuality, p.ProbeQuality = float32(c.Finger.EnrollQuality), float32(c.Finger.ProbeQuality)
	p.VerifyThreshold = configuredOr(c.Finger.VerifyThreshold, of(decide.Verify))
	p.IdentifyThreshold = configuredOr(c.Finger.IdentifyThreshold, of(decide.Identify))
	p.DuplicateThreshold = configuredOr(c.Finger.DuplicateThreshold, of(decide.Duplicate))
	return p
}

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
