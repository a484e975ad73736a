package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/infer/chain"
	"vigil/infer/ort"
	"vigil/infer/preset"
)

// ModelInfo describes one imported bundle.
type ModelInfo struct {
	ID           string `json:"id"`
	Title        string `json:"title"`
	Modality     string `json:"modality"`
	Licence      string `json:"licence"`
	InUse        bool   `json:"in_use"`
	BuiltIn      bool   `json:"built_in,omitempty"` // in the binary, not sealed
	Dimension    int    `json:"template_dimension"`
	TemplateType string `json:"template_type"`
	Runtime      string `json:"runtime,omitempty"` // that runs it, if in use
	// PassedOver says of every faster runtime why it does not run this bundle; Runtimes has the whole chain.
	PassedOver []string        `json:"passed_over,omitempty"`
	Runtimes   []chain.Verdict `json:"runtimes,omitempty"`
	// Choices say which file of each stage the runtime loads, and why.
	Choices     []infer.Choice  `json:"choices,omitempty"`
	SealedBytes int64           `json:"sealed_bytes,omitempty"`
	Verify      float32         `json:"verify_threshold"`
	Identify    float32         `json:"identify_threshold"`
	Duplicate   float32         `json:"duplicate_threshold"`
	DataSet     string          `json:"threshold_data_set"`
	Liveness    *infer.Liveness `json:"liveness,omitempty"` // nil: the bundle has no liveness stage
	Problem     string          `json:"problem,omitempty"`
}

func (i *ModelInfo) describe(m *infer.Manifest) {
	i.ID, i.Title, i.Modality, i.Licence = m.ID, m.Title, m.Modality, m.Licence
	i.Dimension, i.TemplateType = m.Template.Dimension, m.Template.Type
	i.Verify, i.Identify, i.Duplicate = m.Thresholds["verify"].Score, m.Thresholds["identify"].Score, m.Thresholds["duplicate"].Score
	i.DataSet, i.Liveness = m.Thresholds["verify"].DataSet, m.Liveness
}

// Models lists the bundle in the binary, then the imported ones. One that does not open is listed with its problem.
func (a *Appliance) Models() ([]ModelInfo, error) {
	ids, err := a.vault.IDs()
	if err != nil {
		return nil, err
	}
	list := []ModelInfo{}
	if m, err := builtin.Finger(); err != nil {
		list = append(list, ModelInfo{ID: "built-in", Modality: Finger, BuiltIn: true, Problem: err.Error()})
	} else if !slices.Contains(ids, m.Manifest.ID) {
		info := ModelInfo{BuiltIn: true}
		a.describe(&info, m.Manifest)
		list = append(list, info)
	}
	for _, id := range ids {
		info := ModelInfo{ID: id}
		m, err := a.vault.Load(id)
		if err != nil {
			info.Problem = err.Error()
		} else {
			a.describe(&info, m.Manifest)
		}
		if info.SealedBytes, err = a.vault.SealedBytes(id); err != nil {
			info.Problem = err.Error()
		}
		list = append(list, info)
	}
	return list, nil
}

// describe fills in what the device knows beside the manifest.
func (a *Appliance) describe(info *ModelInfo, m *infer.Manifest) {
	info.describe(m)
	if a.runtime != nil {
		info.Choices = m.Choices(a.runtime.Dialects())
	}
	if a.inUse(m.ID) {
		info.InUse = true
		if g := a.unitOf(m).holding(m.ID); g != nil {
			info.Runtime, info.Choices = g.runtime.Name(), g.choices()
			info.PassedOver, info.Runtimes = chain.PassedOver(g.verdicts), g.verdicts
		}
	}
}

// loadBundle opens an imported bundle, or the one in the binary (own). Errors: vault.ErrNotFound.
func (a *Appliance) loadBundle(id string) (m *infer.Model, own bool, err error) {
	m, err = a.vault.Load(id)
	if errors.Is(err, vault.ErrNotFound) {
		if b, failed := builtin.Finger(); failed == nil && b.Manifest.ID == id {
			return b, true, nil
		}
	}
	return m, false, err
}

// ModelDetail is everything about one bundle but its weights.
type ModelDetail struct {
	ModelInfo
	Manifest *infer.Manifest `json:"manifest"`
	Files    []FileState     `json:"files"`
}

// FileState is one file of a bundle.
type FileState struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"` // as the manifest says
	Problem string `json:"problem,omitempty"`
}

// files checks every file of a bundle against the manifest.
func files(m *infer.Model) []FileState {
	list := []FileState{}
	for _, name := range m.Manifest.FileNames() {
		s := FileState{Name: name, Bytes: m.Manifest.Files[name].Bytes}
		w, err := m.Open(name) // verifies the checksum
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			s.Problem = err.Error()
		}
		list = append(list, s)
	}
	return list
}

// Model describes an imported bundle in full. Its files are not read: VerifyModel does that. Errors: vault.ErrNotFound and
// those of a bundle that does not open.
func (a *Appliance) Model(id string) (ModelDetail, error) {
	m, own, err := a.loadBundle(id)
	if err != nil {
		return ModelDetail{}, err
	}
	d := ModelDetail{Manifest: m.Manifest, Files: []FileState{}}
	a.describe(&d.ModelInfo, m.Manifest)
	for _, name := range m.Manifest.FileNames() {
		d.Files = append(d.Files, FileState{Name: name, Bytes: m.Manifest.Files[name].Bytes})
	}
	if d.BuiltIn = own; own {
		return d, nil
	}
	d.SealedBytes, err = a.vault.SealedBytes(id)
	return d, err
}

// InspectBundle describes a bundle that lies in the open, a folder or a tar at path, and checks its files; it needs no
// device and runs nothing. Its choices are those of ONNX Runtime on the CPU. With a preset the path may be empty: only
// the preset is described then. Errors: infer.ErrManifest, infer.ErrTar, preset.ErrUnknown, those of the path.
func InspectBundle(path, presetName string) (d ModelDetail, err error) {
	manifest, err := loadPreset(presetName)
	if err != nil {
		return d, err
	}
	d = ModelDetail{Manifest: manifest, Files: []FileState{}}
	if path != "" {
		m, done, err := openBundle(path, manifest)
		if err != nil {
			return d, fmt.Errorf("cannot inspect %s: %w", path, err)
		}
		d.Manifest, d.Files = m.Manifest, files(m)
		if err := done(); err != nil {
			return d, err
		}
	}
	d.describe(d.Manifest)
	d.Choices = d.Manifest.Choices(ort.Dialects)
	if _, err := modalityOf(d.Manifest); err != nil {
		d.Problem = err.Error()
	}
	return d, nil
}

// loadPreset returns a preset; nil for no name.
func loadPreset(name string) (*infer.Manifest, error) {
	if name == "" {
		return nil, nil
	}
	return preset.Load(name)
}

// ImportModel reads a bundle from a folder or a tar file (or only its weights, for a preset), loads and runs every model
// once, and seals it. It goes into use at the next start. Errors: infer.ErrManifest, infer.ErrChecksum, infer.ErrTar,
// preset.ErrUnknown, ErrModality, vault.ErrExists, and what the runtime says of a model that it cannot load or run.
func (a *Appliance) ImportModel(ctx context.Context, path, presetName string) (string, error) {
	manifest, err := loadPreset(presetName)
	if err != nil {
		return "", err
	}
	m, done, err := openBundle(path, manifest)
	if err != nil {
		return "", fmt.Errorf("cannot import from %s: %w", path, err)
	}
	err = a.tryModel(ctx, m)
	if err != nil {
		err = fmt.Errorf("cannot import from %s: %w", path, err)
	} else {
		err = a.vault.Import(m)
	}
	if err = errors.Join(err, done()); err != nil {
		return "", err
	}
	id := m.Manifest.ID
	return id, a.audit(ctx, "model.import", "", map[string]any{"model": id}, true)
}

// tryModel proves that the bundle can be used: its pipeline comes up, and every file runs that the runtime may load.
func (a *Appliance) tryModel(ctx context.Context, m *infer.Model) error {
	if a.runtime == nil {
		return a.unready
	}
	p, err := modalityOf(m.Manifest)
	if err != nil {
		return err
	}
	_, _, err = a.onChain(ctx, func(rt infer.Runtime) error {
		if err := p.trial(ctx, rt, m); err != nil {
			return err
		}
		return infer.WarmUp(ctx, rt, m, func(_ infer.Choice, _ time.Duration, err error) error { return err })
	})
	return err
}

// ModelReport is what VerifyModel found.
type ModelReport struct {
	ID      string      `json:"id"`
	Good    bool        `json:"good"`
	Files   []FileState `json:"files"`
	WarmUps []WarmUp    `json:"warm_ups"`
	Problem string      `json:"problem,omitempty"` // of the pipeline as a whole
}

// WarmUp is one model loaded and run once.
type WarmUp struct {
	infer.Choice
	Milliseconds float64 `json:"milliseconds"` // to decrypt, load and run
	Problem      string  `json:"problem,omitempty"`
}

// VerifyModel decrypts every file of an imported bundle, checks its SHA-256, and runs every model that the runtime may
// load. What is wrong stands in the report. Errors: vault.ErrNotFound, those of a manifest that does not open, ErrNoLibrary
// of the runtime, the context's.
func (a *Appliance) VerifyModel(ctx context.Context, id string) (ModelReport, error) {
	r := ModelReport{ID: id, WarmUps: []WarmUp{}}
	m, _, err := a.loadBundle(id)
	if err != nil {
		return r, err
	}
	if a.runtime == nil {
		return r, a.unready
	}
	r.Files, r.Good = files(m), true
	for _, f := range r.Files {
		r.Good = r.Good && f.Problem == ""
	}
	rt, _, err := a.onChain(ctx, func(rt infer.Runtime) error {
		r.WarmUps = []WarmUp{}
		return infer.WarmUp(ctx, rt, m, func(c infer.Choice, took time.Duration, err error) error {
			w := WarmUp{Choice: c, Milliseconds: took.Seconds() * 1e3}
			if passesOn(err) && rt == a.runtime && len(a.verdicts) > 0 {
				return err // another runtime may take it, and is asked for all of them
			}
			if err != nil {
				w.Problem, r.Good = err.Error(), false
			}
			r.WarmUps = append(r.WarmUps, w)
			return ctx.Err()
		})
	})
	if err != nil {
		return r, err
	}
	if !r.Good {
		return r, nil
	}
	p, err := modalityOf(m.Manifest)
	if err == nil {
		err = p.trial(ctx, rt, m)
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil {
		r.Problem, r.Good = err.Error(), false
	}
	return r, nil
}

// ExportModel writes an imported bundle as a tar to w, its weights in clear: they are not protected from then on. That it
// happens is audited and published before the first byte. Errors: vault.ErrNotFound and those of w; what was written by
// then is not a whole tar.
func (a *Appliance) ExportModel(ctx context.Context, id string, w io.Writer) error {
	m, _, err := a.loadBundle(id)
	if err != nil {
		return err
	}
	for _, f := range files(m) {
		if f.Problem != "" {
			return errors.New(f.Problem)
		}
	}
	text, err := json.MarshalIndent(m.Manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := a.audit(ctx, "model.export", "", map[string]any{"model": id, "in_clear": true}, true); err != nil {
		return err
	}
	a.log.Warn("weights leave the device in clear", "model", id)
	return infer.WriteTar(w, text, m)
}

// RemoveModel deletes a bundle that is not in use. Errors: ErrModelInUse, vault.ErrNotFound.
func (a *Appliance) RemoveModel(ctx context.Context, id string) error {
	if a.inUse(id) {
		return fmt.Errorf("cannot remove bundle %s: %w: import another, choose it with models.%s in the configuration and restart first", id, ErrModelInUse, a.inUseBy(id))
	}
	m, loadErr := a.vault.Load(id) // for its engines; one that does not open is removed all the same
	if err := a.vault.Remove(id); err != nil {
		return err
	}
	if loadErr == nil {
		if err := a.forgetEngines(m.Manifest); err != nil {
			return err
		}
	}
	return a.audit(ctx, "model.remove", "", map[string]any{"model": id}, true)
}
