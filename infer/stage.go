package infer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// KindLiveness is the kind of stages that tell a bona fide presentation from an attack.
const KindLiveness = "liveness"

// AnyName stands in a preset for the name of the only tensor on that side of the model, whatever it is.
const AnyName = "*"

// Stage is one step of the pipeline.
type Stage struct {
	Name string `json:"name"` // of its own in the bundle: "detect", "liveness-near"
	// Kind is what the stage does (detect, align, quality, liveness, embed); empty is its name. Several stages of one kind
	// are models whose scores are fused: the mean, weighted by Weight.
	Kind       string   `json:"kind,omitempty"`
	Weight     float64  `json:"weight,omitempty"` // where several stages share a kind: above 0; else absent
	File       string   `json:"file,omitempty"`   // the ONNX model, if the stage runs one
	Inputs     []Tensor `json:"inputs,omitempty"`
	Outputs    []Tensor `json:"outputs,omitempty"`
	Pre        *Step    `json:"pre,omitempty"`
	Post       *Step    `json:"post,omitempty"`
	DeadlineMS float64  `json:"deadline_ms"` // budget of the stage; being over it is counted, see Timing
	// Variants are other files for the same tensors, at a lower precision or with operators of ours, each with the gate that
	// let it in.
	Variants []Variant `json:"variants,omitempty"`
}

// Deadline is the budget of the stage.
func (s *Stage) Deadline() time.Duration {
	return time.Duration(s.DeadlineMS * float64(time.Millisecond))
}

// KindOf is what the stage does.
func (s *Stage) KindOf() string {
	if s.Kind != "" {
		return s.Kind
	}
	return s.Name
}

// open reports whether names of tensors are left to the model.
func (s *Stage) open() bool {
	return slices.ContainsFunc(slices.Concat(s.Inputs, s.Outputs), func(t Tensor) bool { return t.Name == AnyName })
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

// StagesOf returns the stages of a kind, in the order of the bundle.
func (m *Manifest) StagesOf(kind string) (list []*Stage) {
	for i := range m.Stages {
		if m.Stages[i].KindOf() == kind {
			list = append(list, &m.Stages[i])
		}
	}
	return list
}

// validateStage checks one stage on its own.
func (m *Manifest) validateStage(s *Stage) error {
	switch {
	case !(s.DeadlineMS > 0 && s.DeadlineMS <= 60000):
		return fmt.Errorf("deadline_ms %v: above 0, at most 60000", s.DeadlineMS)
	case s.Kind != "" && !namePattern.MatchString(s.Kind):
		return fmt.Errorf("kind %q: 1 to 32 of a-z, 0-9 and dash", s.Kind)
	case s.File == "" && len(s.Inputs)+len(s.Outputs) > 0:
		return errors.New("has tensors but no file")
	case s.File == "" && len(s.Variants) > 0:
		return errors.New("has variants but no file")
	case s.File == "":
		return nil
	}
	if _, ok := m.Files[s.File]; !ok {
		return fmt.Errorf("file %q is not listed under files", s.File)
	}
	if err := m.validateTensors(s); err != nil {
		return err
	}
	return m.validateVariants(s)
}

func (m *Manifest) validateTensors(s *Stage) error {
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return errors.New("a model needs inputs and outputs")
	}
	for _, side := range [][]Tensor{s.Inputs, s.Outputs} {
		for i, t := range side {
			switch {
			case t.Name == "" || t.Type != "float32" || t.Elements() == 0:
				return fmt.Errorf("tensor %v: needs a name, type float32 and positive sizes", t)
			case t.Layout != "" && t.Layout != "NCHW":
				return fmt.Errorf("tensor %v: layout %q: \"NCHW\", or none", t, t.Layout)
			case t.Name == AnyName && (len(side) > 1 || !m.Files[s.File].open()):
				return fmt.Errorf("tensor %v: only the one tensor of a file that a preset leaves open may be of any name", t)
			case slices.ContainsFunc(side[:i], func(o Tensor) bool { return o.Name == t.Name }):
				return fmt.Errorf("tensor %v: its name is used twice", t)
			}
		}
	}
	return nil
}

// validateKinds checks the stages of one kind against each other.
func (m *Manifest) validateKinds() error {
	for i := range m.Stages {
		s := &m.Stages[i]
		switch shared := len(m.StagesOf(s.KindOf())) > 1; {
		case shared && !(s.Weight > 0 && s.Weight <= 1e6):
			return fmt.Errorf("stages[%d] %q: several stages are of kind %q, so each needs a weight above 0", i, s.Name, s.KindOf())
		case !shared && s.Weight != 0:
			return fmt.Errorf("stages[%d] %q: has a weight, but is the only stage of its kind", i, s.Name)
		}
	}
	return nil
}

func finite(values ...float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}
