package ort

import (
	"errors"
	"fmt"

	ortgo "github.com/yalue/onnxruntime_go"

	"vigil/infer"
)

// canceller ends the run of one IO when its context ends: ONNX Runtime looks at the flag of the run's options between two nodes.
type canceller struct {
	infer.Stopper
	opts *ortgo.RunOptions
}

func newCanceller() (*canceller, error) {
	opts, err := ortgo.NewRunOptions()
	if err != nil {
		return nil, fmt.Errorf("cannot make run options: %w", err)
	}
	set := func() { _ = opts.Terminate() } // it fails only where the options are gone, and Forget waits before they are
	return &canceller{infer.Stopper{Set: set, Clear: opts.UnsetTerminate}, opts}, nil
}

// close frees the options. No run may be under way.
func (c *canceller) close() error {
	return errors.Join(c.Forget(), c.opts.Destroy())
}
