package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/secure"
	"vigil/secure/tpm"
)

// requestName is the certificate request in the state folder.
const requestName = "device.csr"

func (a *app) provisionCommand() *cobra.Command {
	var again bool
	c := &cobra.Command{
		Use:   "provision",
		Short: "Make the device's keys in the TPM and its certificate request, once",
		Long: "Make the storage root key, the sealed root secret and the TLS key in the TPM, and write the\n" +
			"certificate request for the fleet's authority to state_dir/" + requestName + ". A device is provisioned\n" +
			"once; do it where nobody else has access to the machine.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			d, err := a.provision(c.Context(), cfg, again)
			if err != nil {
				return err
			}
			return errors.Join(a.provisioned(d, cfg.StateDir, cfg.Fleet.Tenant), d.Close())
		},
	}
	c.Flags().BoolVar(&again, "request", false, "only write the certificate request of a provisioned device again")
	return c
}

// provision makes the device, or opens the one there is to write its request again. The caller closes it.
func (a *app) provision(ctx context.Context, cfg config.Config, again bool) (*secure.Device, error) {
	switch c, _, err := reach(ctx, cfg); {
	case err == nil:
		c.Close()
		return nil, fmt.Errorf("cannot provision %s: a vigild runs on it and answers at %s: stop it first", cfg.StateDir, socketPath(cfg))
	case !errors.Is(err, api.ErrNoDaemon):
		return nil, fmt.Errorf("cannot provision %s: %w", cfg.StateDir, err)
	}
	if again {
		return core.OpenDevice(ctx, cfg)
	}
	t, err := tpm.Open(cfg.TPM.Address)
	if err != nil {
		return nil, err
	}
	var pcrs []uint
	for _, r := range cfg.TPM.PCRs {
		pcrs = append(pcrs, uint(r))
	}
	d, err := secure.Provision(ctx, t, cfg.StateDir, secure.Options{PCRs: pcrs})
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return d, nil
}

// provisioned writes the certificate request and says what was made.
func (a *app) provisioned(d *secure.Device, stateDir, tenant string) error {
	csr, err := d.CSR(tenant)
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, requestName)
	if err := secure.WriteFileAtomic(path, csr, 0o644); err != nil {
		return fmt.Errorf("the device is provisioned, but its certificate request is not written: %w; then run `%s`", err, a.command("provision --request"))
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
		fmt.Fprintf(w, "next     %s\n         %s\n", a.command("models import --preset face DIR"), a.command("run"))
		fmt.Fprintln(w, "         with a fleet: have the request signed by its authority and fill in [fleet] in the configuration")
	})
}
