package eval

import (
	"context"
	"errors"
	"fmt"
)

// Template is what a system keeps of a sample.
type Template struct {
	Data    any     // of the extractor's own kind; only its Compare looks inside
	Quality float64 // 0 to 1; NaN where the system does not measure it
}

// Extractor is a recognition system under test. One goroutine calls it at a time.
type Extractor interface {
	// Extract makes the template of the sample in a file; it is the caller's. An error that wraps ErrAcquire or ErrEnrol
	// is counted, beside the quality that the template then may carry; any other ends the evaluation.
	Extract(ctx context.Context, path string) (Template, error)
	// Compare is the similarity of two templates of this extractor: finite, higher meaning more alike.
	Compare(a, b Template) float64
}

// Liveness is a presentation attack detector under test.
type Liveness interface {
	// Liveness scores the sample in a file, higher meaning bona fide. An error that wraps ErrAcquire is a non-response
	// and counted; any other ends the evaluation.
	Liveness(ctx context.Context, path string) (score float64, err error)
}

// Kinds of failure that are counted instead of ending an evaluation.
var (
	ErrAcquire = errors.New("failure to acquire") // no usable biometric characteristic in the sample
	ErrEnrol   = errors.New("failure to enrol")   // there is one, but it gives no template
)

// ErrNoFace is the failure to acquire of a picture without a usable face.
var ErrNoFace = fmt.Errorf("%w: no face in the picture", ErrAcquire)

// Failure is a sample that gave no template.
type Failure struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"` // "acquire" or "enrol"
	Reason string `json:"reason"`
}

// failure classifies an extractor's error; ok is false if it is none that is counted.
func failure(id string, err error) (f Failure, ok bool) {
	switch {
	case errors.Is(err, ErrAcquire):
		return Failure{id, "acquire", err.Error()}, true
	case errors.Is(err, ErrEnrol):
		return Failure{id, "enrol", err.Error()}, true
	}
	return f, false
}

// countFailures by kind.
func countFailures(list []Failure) (acquire, enrol int) {
	for _, f := range list {
		if f.Kind == "enrol" {
			enrol++
		} else {
			acquire++
		}
	}
	return acquire, enrol
}
