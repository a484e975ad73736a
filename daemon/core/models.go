package core

import (
	"context"
	"fmt"
	"os"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/preset"
)

// ModelInfo describes one imported bundle.
type ModelInfo struct {
	ID          string   `json:"id"`
	Title       string   `json:"title"`
	Modality    string   `json:"modality"`
	Licence     string   `json:"licence"`
	InUse       bool     `json:"in_use"`
	Dimension   int      `json:"template_dimension"`
	Runtime     string   `json:"runtime,omitempty"` // that runs it, if in use
	PassedOver  []string `json:"passed_over,omitempty"`
	SealedBytes int64    `json:"sealed_bytes"`
	Verify      float32  `json:"verify_threshold"`
	Identify    float32  `json:"identify_threshold"`
	Duplicate   float32  `json:"duplicate_threshold"`
	DataSet     string   `json:"threshold_data_set"`
	Problem     string   `json:"problem,omitempty"`
}

// Models lists the imported bundles. One that does not open is listed with its problem.
func (a *Appliance) Models() ([]ModelInfo, error) {
	ids, err := a.vault.IDs()
	if err != nil {
		return nil, err
	}
	list := []ModelInfo{}
	for _, id := range ids {
		info := ModelInfo{ID: id}
		if info.SealedBytes, err = a.vault.SealedBytes(id); err != nil {
			info.Problem = err.Error()
		}
		m, err := a.vault.Load(id)
		if err != nil {
			info.Problem = err.Error()
			list = append(list, info)
			continue
		}
		mf := m.Manifest
		info.Title, info.Modality, info.Licence, info.Dimension = mf.Title, mf.Modality, mf.Licence, mf.Template.Dimension
		info.Verify, info.Identify, info.Duplicate = mf.Thresholds["verify"].Score, mf.Thresholds["identify"].Score, mf.Thresholds["duplicate"].Score
		info.DataSet = mf.Thresholds["verify"].DataSet
		if a.pipe != nil && a.pipe.ModelID() == id {
			info.InUse, info.Runtime = true, a.runtime.Name()
			info.PassedOver = []string{
				"tensorrt: not part of this build (tag tensorrt)",
				"cuda: not part of this build (tag cuda)",
			}
		}
		list = append(list, info)
	}
	return list, nil
}

// ImportModel reads a bundle from a folder (or only its weights, for a preset), runs it once, and seals it. It
// goes into use at the next start. Errors: infer.ErrManifest, infer.ErrChecksum,
// vault.ErrExists, and what the runtime says of a model that it cannot load or run.
func (a *Appliance) ImportModel(ctx context.Context, dir, presetName string) (string, error) {
	var manifest *infer.Manifest
	if presetName != "" {
		var err error
		if manifest, err = preset.Load(presetName); err != nil {
			return "", err
		}
	}
	m, err := infer.FromDir(os.DirFS(dir), manifest)
	if err != nil {
		return "", fmt.Errorf("cannot import from %s: %w", dir, err)
	}
	if a.runtime == nil {
		return "", a.unready
	}
	trial, err := face.New(ctx, a.runtime, m)
	if err != nil {
		return "", fmt.Errorf("cannot import from %s: %w", dir, err)
	}
	if err := trial.Close(); err != nil {
		return "", err
	}
	id := m.Manifest.ID
	if err := a.vault.Import(m); err != nil {
		return "", err
	}
	return id, a.audit(ctx, "model.import", "", map[string]any{"model": id}, true)
}

// RemoveModel deletes a bundle that is not in use. Errors: ErrModelInUse, vault.ErrNotFound.
func (a *Appliance) RemoveModel(ctx context.Context, id string) error {
	if a.pipe != nil && a.pipe.ModelID() == id {
		return fmt.Errorf("cannot remove bundle %s: %w: import another, choose it with models.face in the configuration and restart first", id, ErrModelInUse)
	}
	if err := a.vault.Remove(id); err != nil {
		return err
	}
	return a.audit(ctx, "model.remove", "", map[string]any{"model": id}, true)
}
