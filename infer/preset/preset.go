// Package preset holds the manifests of well-known public models without their weights: the user brings the files, the
// manifest says how they are used and pins them by SHA-256. A preset whose embedder is the user's own (face-arcface512)
// leaves that file open: its shapes are checked, and the bundle made from it pins what was imported.
//
// A preset is put together from parts (parts/*.json): stages with their files that several presets share, in the order in
// which the preset names them. What belongs to the whole (id, title, licence, template, thresholds) stands in the preset.
//
// It promises that every preset is a valid manifest (a test reads each), blocks on nothing and owns nothing.
package preset

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vigil/infer"
)

//go:embed *.json parts/*.json
var files embed.FS

// Names lists the presets, sorted.
func Names() []string {
	entries, _ := files.ReadDir(".") // an embedded folder that exists
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// document is a preset: a manifest whose stages and files come from parts.
type document struct {
	ID         string                     `json:"id"`
	Title      string                     `json:"title"`
	Licence    string                     `json:"licence"`
	Parts      []string                   `json:"parts"`
	Template   infer.TemplateSpec         `json:"template"`
	Thresholds map[string]infer.Threshold `json:"thresholds"`
	Liveness   *infer.Liveness            `json:"liveness"`
}

// part is some stages with their files.
type part struct {
	Stages []infer.Stage             `json:"stages"`
	Files  map[string]infer.FileSpec `json:"files"`
}

// ErrUnknown means that there is no preset of that name.
var ErrUnknown = errors.New("no such preset")

// Load returns the manifest of a preset; the caller owns it. Errors: ErrUnknown, with the names there are.
func Load(name string) (*infer.Manifest, error) {
	var d document
	data, err := files.ReadFile(name + ".json")
	if err != nil || strings.Contains(name, "/") {
		return nil, fmt.Errorf("%w: %q; there are: %s", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	if err := strict(data, &d); err != nil {
		return nil, fmt.Errorf("preset %s: %w", name, err)
	}
	m := infer.Manifest{
		Format: infer.ManifestFormat, ID: d.ID, Modality: "face", Title: d.Title, Licence: d.Licence,
		Template: d.Template, Thresholds: d.Thresholds, Liveness: d.Liveness, Files: map[string]infer.FileSpec{},
	}
	for _, n := range d.Parts {
		var p part
		data, err := files.ReadFile("parts/" + n + ".json")
		if err == nil {
			err = strict(data, &p)
		}
		if err != nil {
			return nil, fmt.Errorf("preset %s, part %s: %w", name, n, err)
		}
		m.Stages = append(m.Stages, p.Stages...)
		for file, spec := range p.Files {
			m.Files[file] = spec
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("preset %s: %w", name, err)
	}
	return infer.ParsePreset(text) // as strict as with any other manifest
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
