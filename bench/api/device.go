package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vigil/secure/securetest"
)

// device is a provisioned device with a running daemon, in a folder of its own.
type device struct {
	dir, address string
	token        string // of a viewer
	model        string
	daemon       *exec.Cmd
	log          bytes.Buffer
	client       *http.Client
	stops        []func() error
}

func (d *device) file(name string) string { return filepath.Join(d.dir, name) }

// newDevice provisions a device, imports models where there are any, and starts the daemon.
func newDevice(ctx context.Context, o *options) (_ *device, err error) {
	d := &device{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.dir, err = os.MkdirTemp("", "vigil-api-"); err != nil {
		return nil, err
	}
	d.stops = append(d.stops, func() error { return os.RemoveAll(d.dir) })
	chip, stop, err := securetest.StartSWTPM(d.file("swtpm"))
	if err != nil {
		return nil, err
	}
	d.stops = append(d.stops, stop)
	if err := d.certificates(); err != nil {
		return nil, err
	}
	if d.address, err = freeAddress(ctx); err != nil {
		return nil, err
	}
	models := filepath.Join(o.data, "models")
	_, err = os.Stat(models)
	face := o.data != "" && err == nil
	if err := os.WriteFile(d.file("vigild.toml"), []byte(d.config(chip, face)), 0o600); err != nil {
		return nil, err
	}
	if err := d.provision(ctx, o, models, face); err != nil {
		return nil, err
	}
	if err := d.start(ctx, o); err != nil {
		return nil, err
	}
	d.model, err = d.firstModel(ctx)
	return d, err
}

func (d *device) config(chip string, face bool) string {
	models := ""
	if !face {
		models = "[models]\nface = \"off\"\n"
		fmt.Println("api: no models under VIGIL_DATA: only the fingerprint models in the binary are driven")
	}
	return fmt.Sprintf("version = 1\nstate_dir = %q\n[tpm]\naddress = %q\n%s[api]\nkserve = true\nrate_per_second = 0.0\n"+
		"[api.tcp]\naddress = %q\ncertificate = %q\nkey = %q\nclient_ca = %q\n[[api.tcp.clients]]\nname = \"operator\"\nscope = \"operator\"\n",
		d.file("state"), chip, models, d.address, d.file("server.pem"), d.file("server.key"), d.file("ca.pem"))
}

// vigild runs a command of the binary and returns its output.
func (d *device) vigild(ctx context.Context, o *options, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, o.vigild, append(args, "--config", d.file("vigild.toml"))...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("vigild %s: %w\n%s", strings.Join(args, " "), err, errs.Bytes())
	}
	return out.String(), nil
}

func (d *device) provision(ctx context.Context, o *options, models string, face bool) error {
	if _, err := d.vigild(ctx, o, "provision"); err != nil {
		return err
	}
	if face {
		if _, err := d.vigild(ctx, o, "models", "import", "--preset", "face", models); err != nil {
			return err
		}
	}
	secret, err := d.vigild(ctx, o, "token", "create", "--scope", "viewer", "--name", "schemathesis")
	if err != nil {
		return err
	}
	d.token = strings.TrimSpace(secret)
	doc, err := d.vigild(ctx, o, "api", "openapi")
	if err != nil {
		return err
	}
	return os.WriteFile(d.file("openapi.json"), []byte(doc), 0o600)
}

// start runs the daemon and waits until it answers.
func (d *device) start(ctx context.Context, o *options) error {
	d.daemon = exec.Command(o.vigild, "run", "--config", d.file("vigild.toml")) //nolint:noctx // it is stopped in order by close
	d.daemon.Stderr = &d.log
	if o.verbose {
		d.daemon.Stderr = os.Stderr
	}
	if err := d.daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.daemon.Wait() }()
	d.stops = append(d.stops, func() error {
		if err := d.daemon.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		select {
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("the daemon ended badly: %w\n%s", err, d.log.Bytes())
			}
			return nil
		case <-time.After(time.Minute):
			return errors.Join(errors.New("the daemon does not end"), d.daemon.Process.Kill())
		}
	})
	for end := time.Now().Add(time.Minute); ; {
		_, err := d.get(ctx, "/v1/health/ready")
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("the daemon does not answer: %w\n%s", err, d.log.Bytes())
		}
	}
}

// close takes everything down, last first.
func (d *device) close() error {
	var errs []error
	for i := len(d.stops) - 1; i >= 0; i-- {
		errs = append(errs, d.stops[i]())
	}
	d.stops = nil
	return errors.Join(errs...)
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// certificates makes a throw-away authority and certificates for the server and two clients: "operator", whom the
// configuration names, and "nobody".
func (d *device) certificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("authority of make api-fuzz", 1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	if err := d.write("ca.pem", "CERTIFICATE", caDER); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))
	for i, name := range []string{"server", "operator", "nobody"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		t := template(name, int64(i+2))
		t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if name == "server" {
			t.ExtKeyUsage, t.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
		if err != nil {
			return err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := errors.Join(d.write(name+".pem", "CERTIFICATE", der), d.write(name+".key", "PRIVATE KEY", keyDER)); err != nil {
			return err
		}
		if name == "operator" {
			d.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
				MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			}}}
		}
	}
	return nil
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func (d *device) write(name, kind string, der []byte) error {
	return os.WriteFile(d.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
