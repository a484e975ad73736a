package ort

import (
	"context"
	"errors"
	"fmt"

	ortgo "github.com/yalue/onnxruntime_go"
)

// canceller ends the run of one IO when its context ends: ONNX Runtime looks at the flag between two nodes. It watches the
// latest context until another comes, so that a sensor's frames, which share one, cost nothing each.
type canceller struct {
	opts  *ortgo.RunOptions
	ctx   context.Context // watched; nil if none is
	stop  func() bool     // ends the watch; false if the flag is set or about to be
	fired chan struct{}   // closed when the flag is set
}

func newCanceller() (*canceller, error) {
	opts, err := ortgo.NewRunOptions()
	if err != nil {
		return nil, fmt.Errorf("cannot make run options: %w", err)
	}
	return &canceller{opts: opts}, nil
}

// watch makes the next run end when the context does.
func (c *canceller) watch(ctx context.Context) error {
	if c.ctx == ctx {
		return nil
	}
	if err := c.forget(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		return nil
	}
	fired := make(chan struct{})
	opts := c.opts
	c.ctx, c.fired = ctx, fired
	c.stop = context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = opts.Terminate() // it fails only where the options are gone, and forget waits before they are
	})
	return nil
}

// forget ends the watch, and takes back a flag that it has set.
func (c *canceller) forget() error {
	if c.ctx == nil {
		return nil
	}
	set := !c.stop()
	if set {
		<-c.fired
	}
	c.ctx, c.stop, c.fired = nil, nil, nil
	if set {
		return c.opts.UnsetTerminate()
	}
	return nil
}

// close frees the options. No run may be under way.
func (c *canceller) close() error {
	return errors.Join(c.forget(), c.opts.Destroy())
}
