package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/infer"
)

func (a *app) modelsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "Import, use, list, inspect, verify, quantise, build, export and remove model bundles",
		Args:  exactly(),
		RunE:  a.listModels,
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the imported bundles, which are in use, and which file of each stage runs",
		Args:  exactly(),
		RunE:  a.listModels,
	}
	c.AddCommand(a.importCommand(), a.useCommand(), list, a.inspectCommand(), a.verifyModelCommand(), a.quantizeCommand(), a.buildCommand(), a.exportCommand(), a.removeCommand())
	return c
}

func (a *app) listModels(c *cobra.Command, _ []string) error {
	return a.with(c.Context(), func(cl *api.Client) error {
		list, err := cl.Models(c.Context())
		if err != nil {
			return err
		}
		return a.print(list, func(w io.Writer) { a.printModels(w, list) })
	})
}

func (a *app) importCommand() *cobra.Command {
	var q api.ImportRequest
	c := &cobra.Command{
		Use:   "import PATH",
		Short: "Check a bundle, run it once, and seal it",
		Long: "Check the files of a bundle against its bundle.json, load and run every model once, and keep them\n" +
			"sealed under the device's keys. PATH is a folder or a tar file that vigild's user can read; a tar has\n" +
			"the files at its root (tar -C DIR -cf FILE .), without compression. Importing the same bundle again\n" +
			"changes nothing.\n\n" +
			"--preset takes well-known public models, which have no bundle.json; PATH holds the weights only:\n" + presetList() +
			"`vigild models inspect --preset NAME` says which files a preset wants, and how it uses them.",
		Args: exactly("a PATH"),
		RunE: func(c *cobra.Command, paths []string) (err error) {
			if q.Path, err = filepath.Abs(paths[0]); err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				id, err := cl.ImportModel(c.Context(), q)
				if err != nil {
					return hint(err, importRemedy(q.Preset), "import")
				}
				return a.print(map[string]string{"id": id}, func(w io.Writer) {
					fmt.Fprintf(w, "imported %s; `%s` takes it into use, a restart does if it is the only one\n", id, a.command("models use "+id))
				})
			})
		},
	}
	c.Flags().StringVar(&q.Preset, "preset", "", "use this built-in manifest; PATH holds the weights only")
	return c
}

func importRemedy(preset string) string {
	if preset == "" {
		return "name the folder or the tar of a bundle, or add --preset face for the public models"
	}
	return "name a folder or a tar with the files of the preset, which vigild's user can read"
}

func (a *app) useCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "use ID",
		Short: "Take an imported bundle into use, without a restart",
		Long: "Load a bundle beside the one in use, run it on a check set, and let it take over between two frames.\n" +
			"If it does not answer as it must, it is dropped, the old one stays, and the reason is audited. People\n" +
			"who are enrolled with the old bundle alone are recognised by it until they are enrolled again, or from\n" +
			"the pictures of their enrolment where policy.keep_enrolment_crops keeps them: `status` says how many.",
		Args: exactly("an ID"),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				r, err := cl.UseModel(c.Context(), ids[0])
				if err != nil {
					return hint(err, fmt.Sprintf("`%s` lists the bundles", a.command("models list")), "no_model_bundle")
				}
				return a.print(r, func(w io.Writer) { printSwap(w, &r) })
			})
		},
	}
}

func printSwap(w io.Writer, r *core.SwapReport) {
	fmt.Fprintf(w, "%s is in use for %ss (loaded in %.0f ms, checked in %.0f ms, switched in %.1f ms)\n", r.To, r.Modality, r.LoadMS, r.CheckMS, r.SwitchMS)
	if r.Elder != "" {
		fmt.Fprintf(w, "%d people are enrolled with %s alone: it stays beside it until they are enrolled again\n", r.Left, r.Elder)
	}
	if r.UntilRestart {
		fmt.Fprintf(w, "models.%s in the configuration names another bundle: that one is in use again after a restart\n", r.Modality)
	}
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
	if !slices.ContainsFunc(list, func(m core.ModelInfo) bool { return m.Modality != core.Finger }) {
		fmt.Fprintf(w, "no face bundle is imported: `%s` takes the public models in DIR\n", a.command("models import --preset face DIR"))
	}
	for _, m := range list {
		printModel(w, m)
	}
}

func printModel(w io.Writer, m core.ModelInfo) {
	fmt.Fprintln(w, m.ID)
	if m.Problem != "" {
		fmt.Fprintf(w, "  PROBLEM      %s\n", m.Problem)
	}
	if m.Modality == "" {
		return // it does not open
	}
	fmt.Fprintf(w, "  what         %s\n  licence      %s\n  templates    %s, %d x %s\n", m.Title, m.Licence, m.Modality, m.Dimension, m.TemplateType)
	fmt.Fprintf(w, "  thresholds   verify %.3f, identify %.3f, duplicate %.3f (set on %s)\n", m.Verify, m.Identify, m.Duplicate, m.DataSet)
	fmt.Fprintf(w, "  liveness     %s\n", livenessText(m.Liveness))
	if m.SealedBytes > 0 {
		fmt.Fprintf(w, "  at rest      %s, sealed\n", bytesText(m.SealedBytes))
	}
	if m.BuiltIn {
		fmt.Fprintln(w, "  at rest      in the binary, not sealed: it holds no secret")
	}
	for _, c := range m.Choices {
		fmt.Fprintf(w, "  runs         %s: %s (%s): %s\n", c.Stage, c.File, c.Precision, c.Reason)
		if c.Kernels != "" {
			fmt.Fprintf(w, "               by %s\n", c.Kernels)
		}
	}
	switch {
	case m.InUse:
		fmt.Fprintf(w, "  in use       on %s\n", m.Runtime)
	case m.SealedBytes > 0 || m.BuiltIn:
		fmt.Fprintln(w, "  in use       no")
	}
	for _, p := range m.PassedOver {
		fmt.Fprintf(w, "  passed over  %s\n", p)
	}
}

func livenessText(l *infer.Liveness) string {
	if l == nil {
		return "none: presentation attacks are not noticed"
	}
	rate := func(r *float64) string {
		if r == nil {
			return "not measured"
		}
		return fmt.Sprintf("%.1f %%", *r*100)
	}
	return fmt.Sprintf("bona fide from %.2f (BPCER %s, APCER %s; set on %s)", l.Score, rate(l.BPCER), rate(l.APCER), l.DataSet)
}
