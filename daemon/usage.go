package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/config"
)

// usageError is wrong usage of a command, with the way to its help.
func usageError(c *cobra.Command, format string, list ...any) error {
	return &codeError{exitUsage, fmt.Errorf("%w (see `%s --help`)", fmt.Errorf(format, list...), c.CommandPath())}
}

// exactly takes as many arguments as there are names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, list []string) error {
		name := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
		switch {
		case len(list) == len(names):
			return nil
		case len(names) == 0 && c.HasSubCommands():
			return usageError(c, "%s has no command %q", name, list[0])
		case len(names) == 0:
			return usageError(c, "%s takes no arguments, not %q", name, list[0])
		case len(list) < len(names):
			return usageError(c, "%s needs %s", name, strings.Join(names[len(list):], " and "))
		}
		return usageError(c, "%s takes only %s, not %q too", name, strings.Join(names, " and "), list[len(names)])
	}
}

// noCommand is the command of the root: there is none of that name.
func noCommand(c *cobra.Command, list []string) error {
	if len(list) == 0 {
		return c.Help()
	}
	if near := c.SuggestionsFor(list[0]); len(near) > 0 {
		return usageError(c, "there is no command %q; did you mean %s?", list[0], strings.Join(near, " or "))
	}
	return usageError(c, "there is no command %q", list[0])
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(c *cobra.Command, list []string) error {
			found, rest, err := c.Root().Find(list)
			if err != nil || len(rest) > 0 {
				return noCommand(c.Root(), list)
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// command is how the user calls a command of this program, with the configuration that is in use.
func (a *app) command(words string) string {
	if a.configPath == config.DefaultPath {
		return "vigild " + words
	}
	return "vigild --config " + quote(a.configPath) + " " + words
}

// quote makes a path one word of a shell.
func quote(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+,:@%=", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
