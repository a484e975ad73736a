//go:build !appliance

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/fleet"
	"vigil/fleet/fleettest"
	"vigil/secure"
	"vigil/secure/securetest"
	"vigil/secure/tpm"
)

func init() { demoCommand = (*app).demoCmd }

func (a *app) demoCmd() *cobra.Command {
	d := &demo{app: a, limit: 2 * time.Minute}
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole way on this machine: enrol, recognise, audit, publish",
		Long: "Make a throw-away device: a software TPM, a broker with mutual TLS and a certificate authority.\n" +
			"Enrol generated fingers of nobody, have them and strange ones touch a reader, and print who was\n" +
			"recognised. Where VIGIL_DATA names a folder with public pictures, enrol people by face as well and\n" +
			"show their other pictures, strangers and video clips to a replayed camera.\n" +
			"Exit code 0 only if every enrolled person was found and no stranger was.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().StringVar(&d.dir, "dir", filepath.Join(os.TempDir(), fmt.Sprintf("vigil-demo-%d", os.Getuid())), "folder for the device; made anew")
	return c
}

// demo is one run of the demonstration.
type demo struct {
	app *app
	dir string // of the whole demo; the device's state is a folder in it

	limit time.Duration // of the whole run

	data    string
	faces   bool // the data is there
	cast    *cast
	pki     *fleettest.PKI
	broker  *fleettest.Broker
	manager *fleettest.Manager
	cfg     config.Config
	ap      *core.Appliance
	closers []func() error
	ids     map[string]*person // by subject id
}

// demoTenant is the tenant of the throw-away fleet.
const demoTenant = "demo"

// marker says that a folder was made by the demo and may be removed by it.
const marker = ".vigil-demo"

func (d *demo) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	defer func() { err = errors.Join(err, d.close()) }()
	start := time.Now()
	if err := d.findData(); err != nil {
		return err
	}
	d.ids = map[string]*person{}
	steps := d.steps()
	for i, s := range steps {
		began := time.Now()
		d.say("[%d/%d] %s ...", i+1, len(steps), s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		d.say("      %.1f s", time.Since(began).Seconds())
	}
	r, err := d.report(ctx, time.Since(start))
	if err != nil {
		return err
	}
	if err := d.app.print(r, func(w io.Writer) { r.print(w) }); err != nil {
		return err
	}
	if !r.Right {
		return errors.New("the demo shows something wrong: see the table")
	}
	return nil
}

// step is a part of the demo.
type step struct {
	what string
	do   func(context.Context) error
}

// steps are the parts that the data allows.
func (d *demo) steps() []step {
	list := []step{
		{"making a software TPM and the device's keys in it", d.provision},
		{"starting a broker with mutual TLS and a management client", d.startFleet},
	}
	if d.faces {
		list = append(list, step{"importing the face models and sealing them", d.importModels})
	}
	list = append(list, step{"opening the device", d.openDevice},
		step{"enrolling generated fingers, the last one at the reader", d.enrollFingers},
		step{"touching the reader with these and with strange fingers", d.showFingers})
	if d.faces {
		list = append(list,
			step{"enrolling people from half of their pictures", d.enroll},
			step{"enrolling a person in front of the camera", d.enrollLive},
			step{"replaying the other pictures and strangers as a camera", d.showPictures},
			step{"replaying video clips as a camera", d.showClips})
	}
	return append(list, step{"sending signed commands from the management side", d.command})
}

// say prints progress.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.app.env.Stderr, format+"\n", args...) }

// close stops everything in reverse order.
func (d *demo) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.closers = nil
	return errors.Join(errs...)
}

func (d *demo) later(fn func() error) { d.closers = append(d.closers, fn) }

func (d *demo) stateDir() string { return filepath.Join(d.dir, "state") }
func (d *demo) tpmDir() string   { return filepath.Join(d.dir, "swtpm") }
func (d *demo) tpmLog() string   { return filepath.Join(d.dir, "swtpm.log") }

// fresh makes the demo's folder anew; it removes only a folder that an earlier demo made.
func (d *demo) fresh() error {
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return err
	}
	d.dir = dir
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s is not empty and was not made by a demo: choose another --dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.stateDir(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

func (d *demo) provision(ctx context.Context) error {
	if err := d.fresh(); err != nil {
		return err
	}
	addr, stop, err := securetest.StartSWTPM(d.tpmDir(), securetest.WithLog(d.tpmLog()))
	if err != nil {
		return err
	}
	d.later(stop)
	t, err := tpm.Open(addr)
	if err != nil {
		return err
	}
	dev, err := secure.Provision(ctx, t, d.stateDir(), secure.Options{})
	if err != nil {
		return errors.Join(err, t.Close())
	}
	d.cfg = config.Default()
	d.cfg.StateDir, d.cfg.TPM.Address = d.stateDir(), addr
	if !d.faces {
		d.cfg.Models.Face = "off"
	}
	csr, err := dev.CSR(demoTenant)
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	if d.pki, err = fleettest.NewPKI(time.Now()); err != nil {
		return errors.Join(err, dev.Close())
	}
	cert, err := d.pki.SignRequest(csr)
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	d.cfg.Fleet = config.Fleet{Tenant: demoTenant, CA: d.file("ca.pem"), Certificate: d.file("device.pem")}
	return errors.Join(dev.Close(), os.WriteFile(d.cfg.Fleet.CA, d.pki.CAPEM(), 0o600), os.WriteFile(d.cfg.Fleet.Certificate, cert, 0o600))
}

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) startFleet(ctx context.Context) error {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	authority, err := fleet.NewAuthority(priv)
	if err != nil {
		return err
	}
	d.later(func() error { authority.Close(); return nil })
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return err
	}
	key, err := fleet.ManagementKEM().GenerateKey()
	if err != nil {
		return err
	}
	f := &d.cfg.Fleet
	f.CommandKeys, f.ManagementKey, f.ServerName = []string{d.file("authority.pem")}, d.file("management.pub"), fleettest.ServerName
	err = errors.Join(
		os.WriteFile(f.CommandKeys[0], pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600),
		os.WriteFile(f.ManagementKey, []byte(base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())), 0o600))
	if err != nil {
		return err
	}
	if d.broker, err = fleettest.NewBroker(d.pki, nil); err != nil {
		return err
	}
	d.later(d.broker.Close)
	f.Broker = d.broker.Addr()
	id, err := d.pki.Management(demoTenant)
	if err != nil {
		return err
	}
	tls, err := d.pki.ClientTLS(id)
	if err != nil {
		return err
	}
	d.manager, err = fleettest.NewManager(fleettest.ManagerConfig{
		Addr: d.broker.Addr(), TLS: tls, Tenant: demoTenant, Authority: authority, Key: key,
	})
	if err != nil {
		return err
	}
	d.later(func() error { d.manager.Close(); return nil })
	return d.manager.Ready(ctx)
}

func (d *demo) importModels(ctx context.Context) error {
	ap, err := d.open(ctx)
	if err != nil {
		return err
	}
	_, err = ap.ImportModel(ctx, filepath.Join(d.data, "models"), "face")
	return errors.Join(err, ap.Close())
}

func (d *demo) open(ctx context.Context) (*core.Appliance, error) {
	return core.Open(ctx, d.cfg, core.Options{Logger: d.app.logger(config.Log{Level: "error"})})
}

func (d *demo) openDevice(ctx context.Context) (err error) {
	if d.ap, err = d.open(ctx); err != nil {
		return err
	}
	d.later(d.ap.Close)
	text, err := toml.Marshal(d.cfg)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(d.file("vigild.toml"), text, 0o600), d.ap.Start(ctx))
}
