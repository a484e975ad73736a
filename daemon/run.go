package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
)

func (a *app) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the appliance until a signal ends it",
		Long: "Run the appliance: keys, store, models, sensors, fleet, local interface. Ready is reported to\n" +
			"systemd, and its watchdog is fed only after a frame, a store write and a TPM command have\n" +
			"succeeded. The first SIGTERM or SIGINT closes in order, a second one ends at once.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c.Context()) },
	}
}

func (a *app) run(ctx context.Context) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	log := a.logger(cfg.Log)
	if err := noCoreDumps(); err != nil {
		return err
	}
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := core.CleanUp(cfg.StateDir); err != nil {
		return fmt.Errorf("cannot clean up after the last run: %w", err)
	}
	err = a.serve(ctx, log, cfg)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		log.Info("stopped before it was ready")
		return nil
	}
	return err
}

// serve brings the appliance up, lets it run until the context ends, and takes it down.
func (a *app) serve(ctx context.Context, log *slog.Logger, cfg config.Config) (err error) {
	start := time.Now()
	ap, err := core.Open(ctx, cfg, core.Options{Logger: log, Builder: engineBuilder()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ap.Close()) }()
	server, err := api.Serve(ctx, socketPath(cfg), ap, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := ap.Start(ctx); err != nil {
		return err
	}
	if err := ap.Prove(ctx, start); err != nil {
		return fmt.Errorf("the device is up but does not work: %w", err)
	}
	log.Info("ready", "device", ap.DeviceID(), "version", core.Version, "took", time.Since(start).Round(time.Millisecond))
	notify(log, daemon.SdNotifyReady)
	keepProving(ctx, log, ap)
	log.Info("stopping")
	notify(log, daemon.SdNotifyStopping)
	return nil
}

// noCoreDumps keeps the process out of core files and away from debuggers of the same user.
func noCoreDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot forbid core dumps: %w", err)
	}
	return nil
}

// notify tells systemd, where there is one.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "err", err)
	}
}

// proveEvery is how often the device proves that it works where no watchdog asks for more.
const proveEvery = 30 * time.Second

// keepProving feeds the watchdog after each proof, until the context ends. A proof that fails or hangs starves the
// watchdog, and systemd restarts the service.
func keepProving(ctx context.Context, log *slog.Logger, ap *core.Appliance) {
	every := proveEvery
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("cannot read the watchdog's interval", "err", err)
	}
	if watchdog > 0 {
		every = watchdog / 3
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		since := last
		last = time.Now()
		proof, cancel := context.WithTimeout(ctx, every)
		err := ap.Prove(proof, since)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("the device could not prove that it works", "err", err)
		case watchdog > 0:
			notify(log, daemon.SdNotifyWatchdog)
		}
	}
}
