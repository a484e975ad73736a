package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
)

// socketPath is where the daemon of this configuration answers.
func socketPath(c config.Config) string {
	if c.API.Socket != "" {
		return c.API.Socket
	}
	return c.StateDir + "/vigild.sock"
}

// answerTimeout is how long a daemon may take to say how it is, before a command calls it dead.
const answerTimeout = 10 * time.Second

// reach returns a client of the running daemon and its status. Without a daemon the error is api.ErrNoDaemon; any other
// means that there is one which does not answer this user, and that its device must be left alone.
func reach(ctx context.Context, cfg config.Config) (*api.Client, core.Status, error) {
	c := api.Dial(socketPath(cfg))
	probe, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	s, err := c.Status(probe)
	if err == nil {
		return c, s, nil
	}
	c.Close()
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("vigild at %s does not answer within %v: look at its log, or restart it", socketPath(cfg), answerTimeout)
	}
	return nil, s, err
}

// connect returns a client of the running daemon, or, where none runs, of an appliance opened in this process without
// sensors and fleet. The caller calls closeFn.
func (a *app) connect(ctx context.Context, cfg config.Config) (c *api.Client, closeFn func() error, err error) {
	c, _, err = reach(ctx, cfg)
	if err == nil {
		return c, func() error { c.Close(); return nil }, nil
	}
	if !errors.Is(err, api.ErrNoDaemon) {
		return nil, nil, err
	}
	ap, err := a.open(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	return api.Direct(ap), ap.Close, nil
}

// open opens the appliance in this process; the command's own words are enough of a log.
func (a *app) open(ctx context.Context, cfg config.Config) (*core.Appliance, error) {
	cfg.Log.Level = "error"
	return core.Open(ctx, cfg, core.Options{Logger: a.logger(cfg.Log), Builder: engineBuilder()})
}

// alone calls fn with the appliance while no daemon runs on its state, and closes it.
func (a *app) alone(ctx context.Context, fn func(*core.Appliance) error) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	ap, err := a.open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ap.Close()) }()
	return fn(ap)
}

// with calls fn with a client and closes it.
func (a *app) with(ctx context.Context, fn func(*api.Client) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	c, closeFn, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(fn(c), closeFn())
}

// withDaemon is with for what only a running daemon can do.
func (a *app) withDaemon(ctx context.Context, what string, fn func(*api.Client) error) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	c, _, err := reach(ctx, cfg)
	if errors.Is(err, api.ErrNoDaemon) {
		return fmt.Errorf("%s needs the running daemon: %w: start it with `%s`", what, err, a.command("run"))
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}
