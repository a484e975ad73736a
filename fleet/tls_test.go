package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"vigil/fleet"
	"vigil/fleet/fleettest"
)

func TestTLSConfig(t *testing.T) {
	w := newWorld(t)
	other := w.device(t, "other")
	ca, id := w.pki.CAPEM(), w.identity
	server := serverIdentity(t, w)
	for name, c := range map[string]struct {
		ca, cert []byte
		id       fleettest.Identity
		server   string
		want     string // part of the error
	}{
		"good":              {ca, id.CertPEM, id, "localhost", ""},
		"no CA":             {nil, id.CertPEM, id, "localhost", "install the CA"},
		"no server name":    {ca, id.CertPEM, id, "", "no server name"},
		"no certificate":    {ca, ca[:20], id, "localhost", "sign this device's request"},
		"broken":            {ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), id, "localhost", "install it again"},
		"no key":            {ca, id.CertPEM, fleettest.Identity{}, "localhost", "provision"},
		"key of another":    {ca, id.CertPEM, other, "localhost", "does not fit the key in this device's TPM"},
		"server's own cert": {ca, server.CertPEM, server, "localhost", "not for client authentication"},
	} {
		cfg, err := fleet.TLSConfig(c.ca, c.cert, c.id.Key, c.server)
		if c.want == "" {
			if err != nil || cfg.MinVersion != tls.VersionTLS13 || cfg.ServerName != "localhost" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestCheckValidity(t *testing.T) {
	w := newWorld(t)
	cfg, err := w.pki.ClientTLS(w.identity)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		now  time.Time
		want error
	}{
		"valid":         {now, nil},
		"expired":       {now.AddDate(1, 0, 0), fleet.ErrCertificate},
		"clock of 1970": {time.Unix(0, 0), fleet.ErrClock},
	} {
		if err := fleet.CheckValidity(cfg, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := fleet.CheckValidity(&tls.Config{}, now); !errors.Is(err, fleet.ErrCertificate) {
		t.Errorf("no certificate: %v", err)
	}
}

func TestSignRequest(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(name pkix.Name) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	cert, err := w.pki.SignRequest(request(pkix.Name{CommonName: device, OrganizationalUnit: []string{tenant}}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.TLSConfig(w.pki.CAPEM(), cert, key, "localhost"); err != nil {
		t.Error(err)
	}
	for name, subject := range map[string]pkix.Name{
		"management": {CommonName: fleettest.ManagementName, OrganizationalUnit: []string{tenant}},
		"wildcard":   {CommonName: "+", OrganizationalUnit: []string{tenant}},
		"no tenant":  {CommonName: device},
	} {
		if _, err := w.pki.SignRequest(request(subject)); err == nil {
			t.Errorf("a request for %s is signed", name)
		}
	}
}

// fakeBroker answers TLS in the way a test wants; behave gets each connection after accept.
func fakeBroker(t *testing.T, behave func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				behave(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// handshakeOnly is a server that ends after TLS.
func handshakeOnly(cfg *tls.Config) func(net.Conn) {
	return func(c net.Conn) { _ = tls.Server(c, cfg).Handshake() }
}

func TestDialErrorsNameTheRemedy(t *testing.T) {
	w, stranger := newWorld(t), newWorld(t)
	with := func(pki *fleettest.PKI, change func(*x509.Certificate), alter func(*tls.Config)) func(net.Conn) {
		id, err := pki.Server(change)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := w.pki.ServerTLS()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(id.Key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(id.CertPEM, pemKey(der))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
		if alter != nil {
			alter(cfg)
		}
		return handshakeOnly(cfg)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		behave func(net.Conn)
		want   string
	}{
		"other CA": {with(stranger.pki, nil, nil), "not signed by the fleet CA"},
		"expired":  {with(w.pki, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }, nil), "renew it on the broker"},
		"not yet":  {with(w.pki, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, nil), fleet.ErrClock.Error()},
		"name":     {with(w.pki, func(c *x509.Certificate) { c.DNSNames = []string{"elsewhere"} }, nil), "another name"},
		"TLS 1.2": {with(w.pki, nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }),
			"switch it on"},
		"no TLS": {func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example ESMTP\r\n")) }, "cannot connect"},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, w.config(t, fakeBroker(t, c.behave)), w.deps())
			eventually(t, c.want, func() bool { return strings.Contains(l.Status().LastError, c.want) })
			if s := l.Status(); s.Connected || s.Connects != 0 || w.session != 0 {
				t.Errorf("the link trusted it: %+v", s)
			}
		})
	}
}
