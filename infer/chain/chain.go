// Package chain is the order in which runtimes are tried, and why each was passed over.
//
// Promises: links are tried in their order, and the first that opens is taken. A link that cannot be opened, or that can
// only be told of, is reported with its reason; behind the taken one nothing is tried. Next goes on behind a link, for a
// model that its runtime does not take. It blocks where a link's Probe and Open do; a link that panics is its own fault.
// The package opens nothing by itself, owns nothing, and knows no runtime.
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
	ORTPlugin   = "onnxruntime-provider" // a provider library of its own
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
	Reason  string `json:"reason"` // of a runtime that is used, its name and version
	Used    bool   `json:"used"`
}

// String is the verdict on one line: "tensorrt: not part of this build (tag tensorrt)".
func (v Verdict) String() string { return v.Runtime + ": " + v.Reason }

// ErrNone means that no link could be used. The error says why of each, and wraps the errors of those that were tried.
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

// Open takes the first link that opens. The verdicts are those of all links, in their order; the caller owns the runtime.
// Errors: ErrNone, the context's.
func Open(ctx context.Context, links []Link) (rt infer.Runtime, list []Verdict, err error) {
	failed := []error{ErrNone}
	for _, l := range links {
		v := Verdict{Runtime: l.Name, State: DontKnow, Reason: "not tried: a faster one is used"}
		if rt == nil {
			if err := ctx.Err(); err != nil {
				return nil, list, err
			}
			rt, v, err = try(ctx, l)
			if err != nil {
				failed = append(failed, err)
			}
		}
		list = append(list, v)
	}
	if rt == nil {
		return nil, list, errors.Join(failed...)
	}
	return rt, list, nil
}

// try opens one link.
func try(ctx context.Context, l Link) (infer.Runtime, Verdict, error) {
	if l.Open == nil {
		a := l.Probe()
		return nil, Verdict{Runtime: l.Name, State: a.State, Reason: a.Reason}, fmt.Errorf("%s: %s", l.Name, a.Reason)
	}
	rt, err := l.Open(ctx)
	if err != nil {
		return nil, Verdict{Runtime: l.Name, State: No, Reason: err.Error()}, fmt.Errorf("%s: %w", l.Name, err)
	}
	return rt, Verdict{Runtime: l.Name, State: Yes, Reason: rt.Name(), Used: true}, nil
}

// Next opens what comes behind the link that was used, for a model that it refuses by reason. The verdicts begin with those
// that were, the reason in the place of the one that was used. Errors: as for Open.
func Next(ctx context.Context, links []Link, list []Verdict, reason error) (infer.Runtime, []Verdict, error) {
	all := append([]Verdict(nil), list...)
	for i := range all {
		if !all[i].Used {
			continue
		}
		all[i].Used, all[i].State, all[i].Reason = false, No, reason.Error()
		rt, rest, err := Open(ctx, links[i+1:])
		return rt, append(all[:i+1], rest...), err
	}
	return nil, all, ErrNone
}

// PassedOver are the verdicts before the one that is used, as lines.
func PassedOver(list []Verdict) (lines []string) {
	for _, v := range list {
		if v.Used {
			break
		}
		lines = append(lines, v.String())
	}
	return lines
}
