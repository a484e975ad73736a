// Package chain is the order in which runtimes are tried, and why each was passed over.
//
// Promises: links are asked in their order, each at most once; the first that answers Yes and opens is taken. What came
// before it is reported with its reason, and so is what comes after it. A probe that panics or never answers is the
// link's own fault: nothing here guards it. The package opens nothing by itself, owns nothing, and knows no runtime.
package chain

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer"
)

// State is the answer of a probe.
type State string

// States.
const (
	Yes      State = "yes"
	No       State = "no"
	DontKnow State = "don't know" // it cannot be told without trying, or the trial was not conclusive
)

// Answer says whether a runtime can be used here, and why not, in words.
type Answer struct {
	State  State  `json:"state"`
	Reason string `json:"reason"`
}

// Names of the links, the fastest first. Nobody else makes names.
const (
	TensorRT    = "tensorrt"
	ORTTensorRT = "onnxruntime-tensorrt"
	ORTCUDA     = "onnxruntime-cuda"
	ORTCPU      = "onnxruntime-cpu"
)

// Link is one runtime of the chain.
type Link struct {
	Name  string
	Probe func() Answer
	// Open makes the runtime. nil: it can be told of, not used.
	Open func(ctx context.Context) (infer.Runtime, error)
}

// Verdict is what became of a link.
type Verdict struct {
	Runtime string `json:"runtime"`
	State   State  `json:"state"`
	Reason  string `json:"reason"`
	Chosen  bool   `json:"chosen"`
}

// String is the verdict on one line: "tensorrt: not part of this build (tag tensorrt)".
func (v Verdict) String() string { return v.Runtime + ": " + v.Reason }

// ErrNone: no link could be used. The error says why of each.
var ErrNone = errors.New("no runtime can be used")

// Ask probes every link and opens none.
func Ask(links []Link) []Verdict {
	list := make([]Verdict, 0, len(links))
	for _, l := range links {
		a := l.Probe()
		list = append(list, Verdict{Runtime: l.Name, State: a.State, Reason: a.Reason})
	}
	return list
}

// Open takes the first link that can be used. A link that answers "don't know" is tried. The verdicts are those of all
// links, in their order; the caller owns the runtime. Errors: ErrNone with the errors of the links that were tried, and the
// context's.
func Open(ctx context.Context, links []Link) (rt infer.Runtime, list []Verdict, err error) {
	var failed []error
	for _, l := range links {
		a := l.Probe()
		v := Verdict{Runtime: l.Name, State: a.State, Reason: a.Reason}
		if rt == nil && a.State != No && l.Open != nil {
			if err := ctx.Err(); err != nil {
				return nil, list, err
			}
			opened, err := l.Open(ctx)
			if err != nil {
				v.State, v.Reason = No, err.Error()
				failed = append(failed, fmt.Errorf("%s: %w", l.Name, err))
			} else {
				rt, v.State, v.Chosen = opened, Yes, true
			}
		} else if a.State == No {
			failed = append(failed, fmt.Errorf("%s: %s", l.Name, a.Reason))
		}
		list = append(list, v)
	}
	if rt == nil {
		return nil, list, errors.Join(append([]error{ErrNone}, failed...)...)
	}
	return rt, list, nil
}

// PassedOver are the verdicts of the links before the chosen one, as lines.
func PassedOver(list []Verdict) (lines []string) {
	for _, v := range list {
		if v.Chosen {
			break
		}
		lines = append(lines, v.String())
	}
	return lines
}
