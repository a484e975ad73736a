package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
)

func (a *app) modelsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "List, import, quantise and remove model bundles",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Models(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { a.printModels(w, list) })
			})
		},
	}
	c.AddCommand(a.importCommand(), a.quantizeCommand(), a.removeCommand())
	return c
}

func (a *app) importCommand() *cobra.Command {
	var q api.ImportRequest
	c := &cobra.Command{
		Use:   "import DIR",
		Short: "Check a bundle, run it once, and seal it",
		Long: "Check the files of a bundle against its bundle.json, run every model once, and keep them sealed\n" +
			"under the device's keys. --preset face takes well-known public models, which have no bundle.json.\n" +
			"DIR is a folder that vigild's user can read. Importing the same bundle again changes nothing.",
		Args: exactly("a DIR"),
		RunE: func(c *cobra.Command, dirs []string) (err error) {
			if q.Dir, err = filepath.Abs(dirs[0]); err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				id, err := cl.ImportModel(c.Context(), q)
				if err != nil {
					return hint(err, importRemedy(q.Preset), "import")
				}
				return a.print(map[string]string{"id": id}, func(w io.Writer) {
					fmt.Fprintf(w, "imported %s; a running daemon uses it after a restart\n", id)
				})
			})
		},
	}
	c.Flags().StringVar(&q.Preset, "preset", "", "use this built-in manifest; DIR holds the weights only")
	return c
}

func importRemedy(preset string) string {
	if preset == "" {
		return "name the folder of a bundle, or add --preset face for the public models"
	}
	return "name a folder with the files of the preset, which vigild's user can read"
}

func (a *app) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Delete a bundle that is not in use",
		Args:  exactly("an ID"),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				if err := cl.RemoveModel(c.Context(), ids[0]); err != nil {
					return err
				}
				return a.print(map[string]string{"removed": ids[0]}, func(w io.Writer) { fmt.Fprintln(w, "removed", ids[0]) })
			})
		},
	}
}

func (a *app) printModels(w io.Writer, list []core.ModelInfo) {
	if len(list) == 0 {
		fmt.Fprintf(w, "no bundle is imported: `%s` takes the public models in DIR\n", a.command("models import --preset face DIR"))
	}
	for _, m := range list {
		printModel(w, m)
	}
}

func printModel(w io.Writer, m core.ModelInfo) {
	fmt.Fprintln(w, m.ID)
	if m.Problem != "" {
		fmt.Fprintf(w, "  PROBLEM      %s\n", m.Problem)
		return
	}
	fmt.Fprintf(w, "  what         %s\n  licence      %s\n  templates    %d x int8\n", m.Title, m.Licence, m.Dimension)
	fmt.Fprintf(w, "  thresholds   verify %.3f, identify %.3f, duplicate %.3f (set on %s)\n", m.Verify, m.Identify, m.Duplicate, m.DataSet)
	fmt.Fprintf(w, "  at rest      %s, sealed\n", bytesText(m.SealedBytes))
	if !m.InUse {
		fmt.Fprintln(w, "  in use       no")
		return
	}
	fmt.Fprintf(w, "  in use       on %s\n", m.Runtime)
	for _, p := range m.PassedOver {
		fmt.Fprintf(w, "  passed over  %s\n", p)
	}
}
