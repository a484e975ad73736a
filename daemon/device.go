package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/secure"
	"vigil/secure/tpm"
	"vigil/store"
)

func (a *app) provisionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "provision",
		Short: "Make the device's keys in the TPM and its certificate request, once",
		Long: "Make the storage root key, the sealed root secret and the TLS key in the TPM, and write the\n" +
			"certificate request for the fleet's authority to state_dir/device.csr. A device is provisioned\n" +
			"once; do it where nobody else has access to the machine.",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			t, err := tpm.Open(cfg.TPM.Address)
			if err != nil {
				return err
			}
			var pcrs []uint
			for _, r := range cfg.TPM.PCRs {
				pcrs = append(pcrs, uint(r))
			}
			d, err := secure.Provision(c.Context(), t, cfg.StateDir, secure.Options{PCRs: pcrs})
			if err != nil {
				return errors.Join(err, t.Close())
			}
			return errors.Join(a.provisioned(d, cfg.StateDir, cfg.Fleet.Tenant), d.Close())
		},
	}
}

// provisioned writes the certificate request and says what was made.
func (a *app) provisioned(d *secure.Device, stateDir, tenant string) error {
	csr, err := d.CSR(tenant)
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, "device.csr")
	if err := secure.WriteFileAtomic(path, csr, 0o644); err != nil {
		return err
	}
	info := d.TPMInfo()
	out := struct {
		Device      string `json:"device"`
		TPM         string `json:"tpm"`
		SoftwareTPM bool   `json:"software_tpm"`
		PCRs        []uint `json:"pcrs"`
		Request     string `json:"certificate_request"`
	}{d.DeviceID(), info.Manufacturer, info.IsSoftware, d.PCRs(), path}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "device   %s\nTPM      %s %s\nPCRs     %v\nrequest  %s\n", out.Device, out.TPM, info.Firmware, out.PCRs, path)
		if info.IsSoftware {
			fmt.Fprintln(w, "WARNING  this is a software TPM: for development only")
		}
		fmt.Fprintln(w, "next     have the request signed by the fleet's authority; `vigild models import --preset face DIR`; `vigild run`")
	})
}

func (a *app) modelsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "models",
		Short: "List, import and remove model bundles",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Models(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printModels(w, list) })
			})
		},
	}
	var q api.ImportRequest
	imp := &cobra.Command{
		Use:   "import DIR",
		Short: "Check a bundle, run it once, and seal it",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, dirs []string) (err error) {
			if q.Dir, err = filepath.Abs(dirs[0]); err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				id, err := cl.ImportModel(c.Context(), q)
				if err != nil {
					return err
				}
				return a.print(map[string]string{"id": id}, func(w io.Writer) {
					fmt.Fprintf(w, "imported %s; a running daemon uses it after a restart\n", id)
				})
			})
		},
	}
	imp.Flags().StringVar(&q.Preset, "preset", "", "use this built-in manifest; DIR holds the weights only")
	remove := &cobra.Command{
		Use:   "remove ID",
		Short: "Delete a bundle that is not in use",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				if err := cl.RemoveModel(c.Context(), ids[0]); err != nil {
					return err
				}
				return a.print(map[string]string{"removed": ids[0]}, func(w io.Writer) { fmt.Fprintln(w, "removed", ids[0]) })
			})
		},
	}
	c.AddCommand(imp, remove)
	return c
}

func printModels(w io.Writer, list []core.ModelInfo) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no bundle is imported: `vigild models import --preset face DIR` takes the public models in DIR")
		return
	}
	for _, m := range list {
		if m.Problem != "" {
			fmt.Fprintf(w, "%s\n  PROBLEM     %s\n", m.ID, m.Problem)
			continue
		}
		fmt.Fprintf(w, "%s\n  what        %s\n  licence     %s\n  templates   %d x int8\n", m.ID, m.Title, m.Licence, m.Dimension)
		fmt.Fprintf(w, "  thresholds  verify %.3f, identify %.3f, duplicate %.3f (set on %s)\n", m.Verify, m.Identify, m.Duplicate, m.DataSet)
		fmt.Fprintf(w, "  at rest     %s, sealed\n", bytesText(m.SealedBytes))
		if m.InUse {
			fmt.Fprintf(w, "  in use      on %s\n", m.Runtime)
			for _, p := range m.PassedOver {
				fmt.Fprintf(w, "  passed over %s\n", p)
			}
		}
	}
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify the whole store: structure, every envelope, the audit chain",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			report, err := a.check(c.Context())
			if err != nil {
				return err
			}
			err = a.print(report, func(w io.Writer) { printReport(w, report) })
			if err == nil && report.Err() != nil {
				return &codeError{code: exitProblem}
			}
			return err
		},
	}
}

// check asks the running daemon, or opens the file itself; it needs no model and no runtime.
func (a *app) check(ctx context.Context) (store.Report, error) {
	cfg, err := a.load()
	if err != nil {
		return store.Report{}, err
	}
	cl := api.Dial(socketPath(cfg))
	defer cl.Close()
	if _, err := cl.Status(ctx); err == nil {
		return cl.Check(ctx)
	}
	d, err := core.OpenDevice(ctx, cfg)
	if err != nil {
		return store.Report{}, err
	}
	report, err := store.Check(core.StorePath(cfg.StateDir), d.Keyring())
	return report, errors.Join(err, d.Close())
}

func printReport(w io.Writer, r store.Report) {
	fmt.Fprintf(w, "store      %s (%s, schema %d)\n", r.Path, bytesText(r.FileBytes), r.Schema)
	fmt.Fprintf(w, "subjects   %d with %d templates\naudit      %d events, chain and head verified\n", r.Subjects, r.Templates, r.Audit)
	if len(r.Problems) == 0 {
		fmt.Fprintln(w, "result     every page, key and envelope is good")
		return
	}
	fmt.Fprintf(w, "result     %d PROBLEMS\n", len(r.Problems))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "  %+v\n", p)
	}
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the device is: state, sensors, latencies, fleet",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				s, err := cl.Status(c.Context())
				if err != nil {
					return err
				}
				return a.print(s, func(w io.Writer) { printStatus(w, s) })
			})
		},
	}
}

func printStatus(w io.Writer, s core.Status) {
	fmt.Fprintf(w, "device   %s, vigild %s\nstate    %s\n", s.Device, s.Version, strings.ToUpper(s.State))
	for _, d := range s.Degraded {
		fmt.Fprintf(w, "  because  %s\n", d)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "  note     %s\n", n)
	}
	fmt.Fprintf(w, "TPM      %s\nruntime  %s\nmodel    %s\npeople   %d with %d templates\n", s.TPM, s.Runtime, orDash(s.Model), s.Subjects, s.Templates)
	fmt.Fprintf(w, "outbox   %d records, %s, %d dropped since the store was made\n", s.Outbox.Records, bytesText(int64(s.Outbox.Bytes)), s.Outbox.Dropped)
	if s.Fleet != nil {
		fmt.Fprintf(w, "fleet    connected %v, session %d, %d acknowledged\n", s.Fleet.Connected, s.Fleet.Session, s.Fleet.Acknowledged)
	}
	for _, sn := range s.Sensors {
		fmt.Fprintf(w, "sensor   %s (%s): %s, %d frames, %d dropped, %d broken %s\n", sn.Name, sn.Driver, sn.State, sn.Frames, sn.Dropped, sn.Skipped, sn.Reason)
	}
	if len(s.Latency) > 0 {
		fmt.Fprintln(w)
		printLatencies(w, s.Latency)
	}
}

func printLatencies(w io.Writer, list []core.Latency) {
	var rows [][]string
	for _, l := range list {
		rows = append(rows, []string{l.Stage, fmt.Sprint(l.Count), fmt.Sprintf("%.2f", l.P50), fmt.Sprintf("%.2f", l.P95),
			fmt.Sprintf("%.2f", l.P99), fmt.Sprintf("%.2f", l.Max), fmt.Sprint(l.Late)})
	}
	table(w, []string{"STAGE", "COUNT", "P50 ms", "P95 ms", "P99 ms", "MAX ms", "LATE"}, rows)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version and build",
		Args:  args(cobra.NoArgs),
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
