package core

import (
	"errors"

	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/finger"
)

// Assessment is what the quality components of a face or a finger say. It stands in the answers of the API alone: it is neither
// audited nor published, and decides nothing.
type Assessment struct {
	// Guidance is what would help, as a code: "come_closer", "press_harder"; empty where all is good.
	Guidance   string                      `json:"guidance,omitempty" doc:"what would help, as a code: come_closer, more_finger, ...; left out where all is good"`
	Worst      string                      `json:"worst,omitempty" doc:"the component that the guidance is about"`
	Components map[string]QualityComponent `json:"components" doc:"by name, those that could be computed; names of faces after ISO/IEC 29794-5"`
}

// QualityComponent is one of them.
type QualityComponent struct {
	Value    uint8   `json:"value" schema:"min=0,max=100" doc:"0 is the worst, 100 the best"`
	Measured float32 `json:"measured" doc:"what the value was made from"`
	Unit     string  `json:"unit" doc:"of what was measured; 1 is a ratio"`
}

// assessed is the quality of a presentation, borrowed for the turn: it makes an Assessment for who wants one, so that a sensor's
// frames pay for none.
type assessed interface{ assess() *Assessment }

// assessment is nil where nothing was assessed.
func (p *presentation) assessment() *Assessment {
	if p.parts == nil {
		return nil
	}
	return p.parts.assess()
}

// faceQuality assesses a face.
type faceQuality face.Components

func (q *faceQuality) assess() *Assessment {
	worst, code := (*face.Components)(q).Worst()
	return assess(worst, string(code), q[:])
}

// fingerQuality assesses a print.
type fingerQuality finger.Components

func (q *fingerQuality) assess() *Assessment {
	worst, code := (*finger.Components)(q).Worst()
	return assess(worst, string(code), q[:])
}

// assess puts components into words; their places are their kinds, and worst counts where there is guidance.
func assess[K interface {
	~int
	String() string
	Unit() string
}](worst K, guidance string, list []infer.Component) *Assessment {
	a := &Assessment{Guidance: guidance, Components: make(map[string]QualityComponent, len(list))}
	if guidance != "" {
		a.Worst = worst.String()
	}
	for k, c := range list {
		if kind := K(k); c.Value != infer.NotComputed {
			a.Components[kind.String()] = QualityComponent{c.Value, c.Measured, kind.Unit()}
		}
	}
	return a
}

// assessedError is an error about a presentation with what was assessed of it.
type assessedError struct {
	error
	assessment *Assessment
}

// Unwrap returns the reason.
func (e *assessedError) Unwrap() error { return e.error }

// assessmentOf is what an error about a presentation knows of it; nil if nothing.
func assessmentOf(err error) *Assessment {
	var a *assessedError
	if errors.As(err, &a) {
		return a.assessment
	}
	return nil
}
