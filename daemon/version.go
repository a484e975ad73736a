package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/core"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version and build",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			out := map[string]string{"version": core.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" || s.Key == "-tags" {
						out[strings.TrimPrefix(s.Key, "-")] = s.Value
					}
				}
			}
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "vigild %s (%s, %s)\n", out["version"], out["go"], out["platform"])
			})
		},
	}
}
