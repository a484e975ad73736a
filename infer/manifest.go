package infer

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ManifestName is the name of a bundle's description inside the bundle.
const ManifestName = "bundle.json"

// ManifestFormat is the version of bundle.json that this package writes. It reads format 1 too, which knows no kinds and
// weights of stages and no liveness; what was read is of the current format in memory.
const ManifestFormat = 2

// MaxManifestBytes bounds bundle.json; MaxModelBytes bounds one model file.
const (
	MaxManifestBytes = 1 << 20
	MaxModelBytes    = 512 << 20
)

// MaxFiles bounds the files of a bundle.
const MaxFiles = 64

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
	Liveness   *Liveness            `json:"liveness,omitempty"`
	Files      map[string]FileSpec  `json:"files"` // every file of the bundle but bundle.json
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
	FMR     float64 `json:"fmr"`     // false match rate at Score on the data set (ISO/IEC 19795-1); 1 claims nothing
	DataSet string  `json:"dataset"` // what the rate was measured on
}

// Liveness is the score from which a face counts as a bona fide presentation, with the evidence it was set on. Rates are
// those of ISO/IEC 30107-3; nil is not measured.
type Liveness struct {
	Score   float32  `json:"score"`           // above 0, below 1
	APCER   *float64 `json:"apcer,omitempty"` // attacks taken for bona fide, worst species
	BPCER   *float64 `json:"bpcer,omitempty"` // bona fide presentations taken for attacks
	DataSet string   `json:"dataset"`         // what the rates were measured on, with the species of attacks
}

// FileSpec pins one file of the bundle. In a preset it may be empty: any file will do whose tensors fit, and the bundle
// made from it pins what was found.
type FileSpec struct {
	SHA256 string `json:"sha256,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
}

func (f FileSpec) open() bool { return f == FileSpec{} }

// ErrManifest is wrapped by every refusal of a bundle.json.
var ErrManifest = errors.New("bundle.json is not valid")

// ParseManifest reads and checks a bundle.json. Unknown fields, trailing data and anything out of range are refused with
// an error that wraps ErrManifest and names the field.
func ParseManifest(data []byte) (*Manifest, error) { return parseManifest(data, false) }

// ParsePreset is ParseManifest for a manifest that comes without its files and may leave some of them open: files without
// SHA-256, and tensors of the name AnyName in stages that use them. See Model.Complete.
func ParsePreset(data []byte) (*Manifest, error) { return parseManifest(data, true) }

func parseManifest(data []byte, preset bool) (*Manifest, error) {
	if len(data) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrManifest, len(data), MaxManifestBytes)
	}
	var m Manifest
	if err := strictJSON(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.upgrade(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := m.validate(preset); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return &m, nil
}

// upgrade makes a manifest of format 1 one of the current format. What format 1 did not know is refused in it.
func (m *Manifest) upgrade() error {
	if m.Format != 1 {
		return nil
	}
	if m.Liveness != nil {
		return errors.New("liveness: needs format 2")
	}
	for i, s := range m.Stages {
		if s.Kind != "" || s.Weight != 0 {
			return fmt.Errorf("stages[%d] %q: kind and weight need format 2", i, s.Name)
		}
	}
	m.Format = ManifestFormat
	return nil
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
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	idPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	filePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// operations are the decisions that need a threshold.
var operations = []string{"verify", "identify", "duplicate"}

// CheckID says what is wrong with the id of a bundle.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("id %q: 1 to 64 of a-z, 0-9, dot and dash", id)
	}
	return nil
}

// Validate checks everything that can be checked without the files.
func (m *Manifest) Validate() error { return m.validate(false) }

func (m *Manifest) validate(preset bool) error {
	switch {
	case m.Format != ManifestFormat:
		return fmt.Errorf("format %d: this version of vigild reads formats 1 and %d", m.Format, ManifestFormat)
	case CheckID(m.ID) != nil:
		return CheckID(m.ID)
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
		if !namePattern.MatchString(s.Name) || m.Stage(s.Name) != s {
			return fmt.Errorf("stages[%d] %q: every stage needs a name of its own, 1 to 32 of a-z, 0-9 and dash", i, s.Name)
		}
		if err := m.validateStage(s); err != nil {
			return fmt.Errorf("stages[%d] %q: %w", i, s.Name, err)
		}
	}
	return cmp.Or(m.validateKinds(), m.validateThresholds(), m.validateLiveness(), m.validateFiles(preset))
}

// maxDimension bounds a template in bytes.
func maxDimension(kind string) int {
	if kind == "minutiae" {
		return 16384
	}
	return 1024
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

// FileNames are the files of the bundle in the order of their names.
func (m *Manifest) FileNames() []string { return slices.Sorted(maps.Keys(m.Files)) }

func (m *Manifest) validateLiveness() error {
	stages := len(m.StagesOf(KindLiveness))
	l := m.Liveness
	switch {
	case l == nil && stages == 0:
		return nil
	case l == nil:
		return errors.New("liveness: is missing: a bundle with a stage of kind liveness says from which score a face counts as bona fide")
	case stages == 0:
		return errors.New("liveness: no stage is of kind liveness")
	case !(l.Score > 0 && l.Score < 1):
		return errors.New("liveness.score: lies between 0 and 1")
	}
	for name, r := range map[string]*float64{"apcer": l.APCER, "bpcer": l.BPCER} {
		if r != nil && !(*r >= 0 && *r <= 1) {
			return fmt.Errorf("liveness.%s: lies between 0 and 1", name)
		}
	}
	return nil
}

func (m *Manifest) validateFiles(preset bool) error {
	if len(m.Files) > MaxFiles {
		return fmt.Errorf("files: %d of them, at most %d", len(m.Files), MaxFiles)
	}
	for name, f := range m.Files {
		switch sum, err := hex.DecodeString(f.SHA256); {
		case !filePattern.MatchString(name) || name == ManifestName:
			return fmt.Errorf("files: %q is not a plain file name", name)
		case preset && f.open():
			continue
		case err != nil || len(sum) != 32 || f.SHA256 != strings.ToLower(f.SHA256):
			return fmt.Errorf("files.%s: sha256 must be 64 lower-case hex digits", name)
		case f.Bytes <= 0 || f.Bytes > MaxModelBytes:
			return fmt.Errorf("files.%s: bytes must be above 0, at most %d", name, MaxModelBytes)
		}
	}
	return nil
}
