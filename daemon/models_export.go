package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
)

func (a *app) verifyModelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify ID",
		Short: "Check the sealed files of a bundle and run its models once",
		Long: "Decrypt every sealed file of a bundle, check its SHA-256, and load and run every model that the\n" +
			"runtime may use. The exit code is 4 if something is wrong.",
		Args: exactly("an ID"),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				r, err := cl.VerifyModel(c.Context(), ids[0])
				if err != nil {
					return err
				}
				if err := a.print(r, func(w io.Writer) { printModelReport(w, r) }); err != nil {
					return err
				}
				if !r.Good {
					return &codeError{code: exitProblem}
				}
				return nil
			})
		},
	}
}

func printModelReport(w io.Writer, r core.ModelReport) {
	var rows [][]string
	for _, f := range r.Files {
		rows = append(rows, []string{f.Name, bytesText(f.Bytes), "checksum", goodOr(f.Problem)})
	}
	for _, u := range r.WarmUps {
		what := fmt.Sprintf("%s, %s: runs, %.0f ms with loading", u.Stage, u.Precision, u.Milliseconds)
		rows = append(rows, []string{u.File, "", what, goodOr(u.Problem)})
	}
	table(w, []string{"FILE", "SIZE", "CHECK", "RESULT"}, rows)
	switch {
	case r.Good:
		fmt.Fprintf(w, "%s is whole and runs\n", r.ID)
	case r.Problem != "":
		fmt.Fprintf(w, "%s HAS PROBLEMS: %s\n", r.ID, r.Problem)
	default:
		fmt.Fprintf(w, "%s HAS PROBLEMS: remove it and import it again\n", r.ID)
	}
}

func goodOr(problem string) string {
	if problem == "" {
		return "good"
	}
	return problem
}

func (a *app) exportCommand() *cobra.Command {
	var clear bool
	c := &cobra.Command{
		Use:   "export ID FILE --in-clear",
		Short: "Write a bundle to a tar file, its weights in clear",
		Long: "Write an imported bundle to a new tar file, which `vigild models import` reads. Its weights are not\n" +
			"protected there: --in-clear says that this is meant. The export is audited and published.",
		Args: exactly("an ID", "a FILE"),
		RunE: func(c *cobra.Command, list []string) error {
			if !clear {
				return usageError(c, "export writes the weights in clear, out of the device's protection: add --in-clear if this is meant")
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				n, err := a.export(c.Context(), cl, list[0], list[1])
				if err != nil {
					return err
				}
				return a.print(map[string]any{"id": list[0], "file": list[1], "bytes": n}, func(w io.Writer) {
					fmt.Fprintf(w, "exported %s to %s, %s in clear\n", list[0], list[1], bytesText(n))
				})
			})
		},
	}
	c.Flags().BoolVar(&clear, "in-clear", false, "the weights may leave the device without protection")
	return c
}

// export writes the tar to a file that is new, and leaves none behind when it fails.
func (a *app) export(ctx context.Context, cl *api.Client, id, path string) (n int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("cannot export: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	d, err := cl.Model(ctx, id)
	if err != nil {
		return 0, err
	}
	c := counted{bar: newProgress(a.env.Stderr, "bytes")}
	for _, s := range d.Files {
		c.total += s.Bytes
	}
	if err := cl.ExportModel(ctx, id, io.MultiWriter(f, &c)); err != nil {
		return 0, err
	}
	return c.n, f.Sync()
}

// counted counts what is written and shows it.
type counted struct {
	n, total int64 // bytes; total is without what the tar adds
	bar      *progress
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	was := c.n
	c.n += int64(len(p))
	if was < c.total {
		c.bar.update(int(min(c.n, c.total)), int(c.total))
	}
	return len(p), nil
}
