package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
)

// Env is what a command may touch of the process.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exit codes, see the package comment.
const (
	exitError   = 1
	exitUsage   = 2
	exitNoMatch = 3
	exitProblem = 4
)

// codeError is an error with an exit code of its own. A nil Err prints nothing: the command has said it already.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codeError) Unwrap() error { return e.err }

// Run runs vigild with the arguments behind the program's name and returns the exit code.
func Run(ctx context.Context, env Env, args []string) int {
	root := newRoot(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var coded *codeError
	if !errors.As(err, &coded) {
		coded = &codeError{code: exitError, err: err}
	}
	if coded.err != nil {
		fmt.Fprintln(env.Stderr, "vigild:", coded.err)
	}
	return coded.code
}

// app is what all commands share.
type app struct {
	env        Env
	configPath string
	json       bool
}

func newRoot(env Env) *cobra.Command {
	a := &app{env: env}
	root := &cobra.Command{
		Use:           "vigild",
		Short:         "A biometric appliance: sensors in, decisions out, keys in the TPM",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &codeError{exitUsage, fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&a.configPath, "config", config.DefaultPath, "configuration file")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result as JSON")
	root.AddCommand(a.runCommand(), a.provisionCommand(), a.enrollCommand(), a.verifyCommand(), a.identifyCommand(),
		a.subjectsCommand(), a.modelsCommand(), a.checkCommand(), a.statusCommand(), a.doctorCommand(), a.evalCommand(), a.versionCommand())
	if demoCommand != nil {
		root.AddCommand(demoCommand(a))
	}
	return root
}

// demoCommand adds `vigild demo`; nil in builds for appliances, which carry no broker and no throw-away authority.
var demoCommand func(*app) *cobra.Command

// args wraps cobra's argument checks so that they count as wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, list []string) error {
		if err := check(c, list); err != nil {
			return &codeError{exitUsage, fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())}
		}
		return nil
	}
}

// load reads the configuration.
func (a *app) load() (config.Config, error) { return config.Load(a.configPath) }

// logger makes the log on standard error.
func (a *app) logger(c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.env.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(a.env.Stderr, o))
}

// socketPath is where the daemon of this configuration answers.
func socketPath(c config.Config) string {
	if c.API.Socket != "" {
		return c.API.Socket
	}
	return c.StateDir + "/vigild.sock"
}

// connect returns a client of the running daemon, or, where none runs, of an appliance opened in this process without
// sensors and fleet. The caller calls closeFn.
func (a *app) connect(ctx context.Context) (c *api.Client, closeFn func() error, err error) {
	cfg, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	c = api.Dial(socketPath(cfg))
	if _, err := c.Status(ctx); err == nil {
		return c, func() error { c.Close(); return nil }, nil
	}
	c.Close()
	quiet := cfg.Log
	quiet.Level = "error" // the command's own words are enough
	ap, err := core.Open(ctx, cfg, core.Options{Logger: a.logger(quiet)})
	if err != nil {
		return nil, nil, err
	}
	return api.Direct(ap), ap.Close, nil
}

// with calls fn with a client and closes it.
func (a *app) with(ctx context.Context, fn func(*api.Client) error) error {
	c, closeFn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(c), closeFn())
}

// terminal reports whether w is a terminal, where progress may overwrite itself.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
