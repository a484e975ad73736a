package secure_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// authority is a throw-away CA.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.sign(t, template, template, &key.PublicKey)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(t *testing.T, template, parent *x509.Certificate, public any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// fromCSR issues a client certificate for a request that verifies.
func (a *authority) fromCSR(t *testing.T, raw []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		t.Fatalf("not a request: %s", raw)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: csr.Subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, csr.PublicKey)
}

func (a *authority) server(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), DNSNames: []string{"broker.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// TestMutualTLS has the TPM key authenticate the client of a TLS 1.3 connection,
// with a certificate made from the device's own request, while the TPM does
// other work.
func TestMutualTLS(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	d := provision(t, addr, t.TempDir())
	ca := newAuthority(t)
	csr, err := d.CSR("acme-1")
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.fromCSR(t, csr)
	if cert.Subject.CommonName != d.DeviceID() || cert.Subject.OrganizationalUnit[0] != "acme-1" {
		t.Errorf("subject is %v", cert.Subject)
	}
	busy, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-busy:
				done <- nil
				return
			default:
				if err := d.Ping(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	server := &tls.Config{Certificates: []tls.Certificate{ca.server(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool, MinVersion: tls.VersionTLS13}
	for range 3 {
		client := &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: d.Signer(), Leaf: cert}},
			RootCAs:      ca.pool, ServerName: "broker.test", MinVersion: tls.VersionTLS13,
		}
		if got, err := handshake(t, server, client); err != nil || got != d.DeviceID() {
			t.Errorf("the server saw %q (%v)", got, err)
		}
	}
	close(busy)
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Without the key the certificate is worth nothing.
	stolen := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: ca.key}},
		RootCAs:      ca.pool, ServerName: "broker.test",
	}
	if got, err := handshake(t, server, stolen); err == nil {
		t.Errorf("the server took a stolen certificate of %q", got)
	}
}

// handshake connects over loopback, sends a word, and returns the common name
// that the server saw.
func handshake(t *testing.T, server, client *tls.Config) (name string, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	clientDone := make(chan error, 1)
	go func() {
		dialer := &net.Dialer{Timeout: 20 * time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", l.Addr().String(), client)
		if err == nil {
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, err = conn.Write([]byte("hello"))
			conn.Close()
		}
		clientDone <- err
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Server(raw, server)
	word, err := io.ReadAll(conn)
	if err == nil && string(word) == "hello" {
		name = conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	raw.Close()
	return name, errors.Join(err, <-clientDone)
}

func TestCSRRefusesTenants(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	d := provision(t, addr, t.TempDir())
	for _, tenant := range []string{"", "-a", "A", "a/b", "a+", "#", "a b", strings.Repeat("a", 64)} {
		if _, err := d.CSR(tenant); err == nil {
			t.Errorf("%q: no error", tenant)
		}
	}
}
