package infer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ManifestName is the name of a bundle's description inside the bundle.
const ManifestName = "bundle.json"

// ManifestFormat is the version of bundle.json that this package reads and writes.
const ManifestFormat = 1

// MaxManifestBytes bounds bundle.json; MaxModelBytes bounds one model file.
const (
	MaxManifestBytes = 1 << 20
	MaxModelBytes    = 512 << 20
)

// Manifest is bundle.json: everything about a model but its weights.
type Manifest struct {
	Format     int                  `json:"format"`
	ID         string               `json:"id"`       // model id; templates of different ids are never compared
	Modality   string               `json:"modality"` // "face", "finger"
	Title      string               `json:"title"`
	Licence    string               `json:"licence"` // SPDX, or words where there is none
	Stages     []Stage              `json:"stages"`
	Template   TemplateSpec         `json:"template"`
	Thresholds map[string]Threshold `json:"thresholds"` // by operation: verify, identify, duplicate
	Files      map[string]FileSpec  `json:"files"`      // every file of the bundle but bundle.json
}

// Stage is one step of the pipeline.
type Stage struct {
	Name       string   `json:"name"`           // detect, quality, align, embed
	File       string   `json:"file,omitempty"` // the ONNX model, if the stage runs one
	Inputs     []Tensor `json:"inputs,omitempty"`
	Outputs    []Tensor `json:"outputs,omitempty"`
	Pre        *Step    `json:"pre,omitempty"`
	Post       *Step    `json:"post,omitempty"`
	DeadlineMS float64  `json:"deadline_ms"` // budget of the stage; being over it is counted, see Timing
	// Variants are other files for the same tensors at a lower precision, each with the gate that let it in.
	Variants []Variant `json:"variants,omitempty"`
}

// Deadline is the budget of the stage.
func (s *Stage) Deadline() time.Duration {
	return time.Duration(s.DeadlineMS * float64(time.Millisecond))
}

// Step names a registered pre- or post-processing and its parameters.
type Step struct {
	Name   string          `json:"name"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Decode reads the parameters strictly into v.
func (s *Step) Decode(v any) error {
	if len(s.Params) == 0 {
		return nil
	}
	if err := strictJSON(s.Params, v); err != nil {
		return fmt.Errorf("parameters of %q: %w", s.Name, err)
	}
	return nil
}

// TemplateSpec is the form of the templates that the last stage gives.
type TemplateSpec struct {
	Dimension int    `json:"dimension"` // values
	Type      string `json:"type"`      // "int8": a unit vector; "minutiae": a packed set, see kernels/minutiae
}

// Threshold is a score with the evidence it was set on.
type Threshold struct {
	Score   float32 `json:"score"`   // cosine, -1..1
	FMR     float64 `json:"fmr"`     // false match rate at Score on the data set (ISO/IEC 19795-1)
	DataSet string  `json:"dataset"` // what the rate was measured on
}

// FileSpec pins one file of the bundle.
type FileSpec struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// ErrManifest is wrapped by every refusal of a bundle.json.
var ErrManifest = errors.New("bundle.json is not valid")

// ParseManifest reads and checks a bundle.json. Unknown fields, trailing data and anything out of range are refused with
// an error that wraps ErrManifest and names the field.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrManifest, len(data), MaxManifestBytes)
	}
	var m Manifest
	if err := strictJSON(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return &m, nil
}

func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data behind the closing brace")
	}
	return nil
}

var (
	idPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	filePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// operations are the decisions that need a threshold.
var operations = []string{"verify", "identify", "duplicate"}

// Validate checks everything that can be checked without the files.
func (m *Manifest) Validate() error {
	switch {
	case m.Format != ManifestFormat:
		return fmt.Errorf("format %d: this version of vigild reads format %d", m.Format, ManifestFormat)
	case !idPattern.MatchString(m.ID):
		return fmt.Errorf("id %q: 1 to 64 of a-z, 0-9, dot and dash", m.ID)
	case m.Modality != "face" && m.Modality != "finger":
		return fmt.Errorf("modality %q: this version of vigild knows \"face\" and \"finger\"", m.Modality)
	case m.Template.Type != "int8" && m.Template.Type != "minutiae":
		return fmt.Errorf("template.type %q: must be \"int8\" or \"minutiae\"", m.Template.Type)
	case m.Template.Dimension < 32 || m.Template.Dimension > maxDimension(m.Template.Type):
		return fmt.Errorf("template.dimension %d: 32 to %d for type %q", m.Template.Dimension, maxDimension(m.Template.Type), m.Template.Type)
	case len(m.Stages) == 0 || len(m.Stages) > 16:
		return fmt.Errorf("stages: %d of them, 1 to 16 are allowed", len(m.Stages))
	}
	for i := range m.Stages {
		s := &m.Stages[i]
		if s.Name == "" || m.Stage(s.Name) != s {
			return fmt.Errorf("stages[%d] %q: every stage needs a name of its own", i, s.Name)
		}
		if err := m.validateStage(s); err != nil {
			return fmt.Errorf("stages[%d] %q: %w", i, s.Name, err)
		}
	}
	if err := m.validateThresholds(); err != nil {
		return err
	}
	return m.validateFiles()
}

// maxDimension bounds a template in bytes.
func maxDimension(kind string) int {
	if kind == "minutiae" {
		return 16384
	}
	return 1024
}

func (m *Manifest) validateStage(s *Stage) error {
	if s.DeadlineMS <= 0 || s.DeadlineMS > 60000 {
		return fmt.Errorf("deadline_ms %v: above 0, at most 60000", s.DeadlineMS)
	}
	if s.File == "" {
		if len(s.Inputs)+len(s.Outputs) > 0 {
			return errors.New("has tensors but no file")
		}
		return nil
	}
	if _, ok := m.Files[s.File]; !ok {
		return fmt.Errorf("file %q is not listed under files", s.File)
	}
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return errors.New("a model needs inputs and outputs")
	}
	for _, t := range slices.Concat(s.Inputs, s.Outputs) {
		if t.Name == "" || t.Type != "float32" || t.Elements() == 0 {
			return fmt.Errorf("tensor %v: needs a name, type float32 and positive sizes", t)
		}
	}
	return nil
}

func (m *Manifest) validateThresholds() error {
	for _, op := range operations {
		t, ok := m.Thresholds[op]
		if !ok {
			return fmt.Errorf("thresholds: %q is missing", op)
		}
		if !(t.Score > -1 && t.Score < 1) || !(t.FMR >= 0 && t.FMR <= 1) {
			return fmt.Errorf("thresholds.%s: score lies between -1 and 1, fmr between 0 and 1", op)
		}
	}
	for op := range m.Thresholds {
		if !slices.Contains(operations, op) {
			return fmt.Errorf("thresholds.%s: unknown operation; there are %s", op, strings.Join(operations, ", "))
		}
	}
	return nil
}

func (m *Manifest) validateFiles() error {
	for name, f := range m.Files {
		switch sum, err := hex.DecodeString(f.SHA256); {
		case !filePattern.MatchString(name) || name == ManifestName:
			return fmt.Errorf("files: %q is not a plain file name", name)
		case err != nil || len(sum) != 32 || f.SHA256 != strings.ToLower(f.SHA256):
			return fmt.Errorf("files.%s: sha256 must be 64 lower-case hex digits", name)
		case f.Bytes <= 0 || f.Bytes > MaxModelBytes:
			return fmt.Errorf("files.%s: bytes must be above 0, at most %d", name, MaxModelBytes)
		}
	}
	return nil
}

// Stage returns the stage of that name, or nil.
func (m *Manifest) Stage(name string) *Stage {
	for i := range m.Stages {
		if m.Stages[i].Name == name {
			return &m.Stages[i]
		}
	}
	return nil
}
