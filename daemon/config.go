package main

import (
	_ "embed"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// exampleConfig names every key with its meaning and default. It is the one source of the example that is installed.
//
//go:embed example.toml
var exampleConfig string

func (a *app) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print a configuration to start from, every key explained",
		Long:  "Print a configuration to start from: every key with its meaning and its default.\n\n  vigild config > vigild.toml",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"toml": exampleConfig}, func(w io.Writer) { fmt.Fprint(w, exampleConfig) })
		},
	}
}
