package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

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
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		coded = &codeError{code: exitError, err: errors.New("interrupted")}
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
		Use: "vigild", DisableFlagsInUseLine: true,
		Short: "A biometric appliance: sensors in, decisions out, keys in the TPM",
		Long: "vigild turns this machine with its sensors and its TPM into a biometric appliance.\n\n" +
			"To begin: `vigild config` prints a configuration to start from, `vigild doctor` says what is\n" +
			"missing, `vigild provision` makes the keys, `vigild models import` takes the models, `vigild run` runs.\n" +
			"Commands talk to the running daemon; where none runs they open the device themselves.\n\n" +
			"Exit codes: 0 it holds, 1 error, 2 wrong usage, 3 no match, 4 problems were found.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		SuggestionsMinimumDistance: 2,
		Args:                       cobra.ArbitraryArgs,
		RunE:                       noCommand,
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError(c, "%w", err)
	})
	root.PersistentFlags().StringVar(&a.configPath, "config", config.DefaultPath, "configuration file")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print the result as JSON")
	root.SetHelpCommand(helpCommand())
	root.AddCommand(a.configCommand(), a.doctorCommand(), a.provisionCommand(), a.runCommand(), a.statusCommand(),
		a.enrollCommand(), a.verifyCommand(), a.identifyCommand(), a.subjectsCommand(), a.modelsCommand(),
		a.checkCommand(), a.tokenCommand(), a.apiCommand(), a.evalCommand(), a.synthCommand(), a.recordCommand(), a.sensorsCommand(),
		a.versionCommand())
	if demoCommand != nil {
		root.AddCommand(demoCommand(a))
	}
	if childCommand != nil {
		root.AddCommand(childCommand())
	}
	return root
}

// demoCommand adds `vigild demo`; nil in builds for appliances, which carry no broker and no throw-away authority.
var demoCommand func(*app) *cobra.Command

// childCommand adds the hidden command that builds an engine in a process of its own, and newEngineBuilder what starts it;
// nil in builds without the tag tensorrt, which start no processes.
var (
	childCommand     func() *cobra.Command
	newEngineBuilder func() core.EngineBuilder
)

// engineBuilder is what builds engines; nil in builds that cannot.
func engineBuilder() core.EngineBuilder {
	if newEngineBuilder == nil {
		return nil
	}
	return newEngineBuilder()
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

// terminal reports whether w is a terminal, where progress may overwrite itself.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
