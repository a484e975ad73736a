package fleettest

import (
	"crypto"
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
	"time"

	"vigil/fleet"
)

// ManagementName is the common name of the management side's certificate; fleet refuses it as a device name.
const ManagementName = "management"

// ServerName is the name in the certificate of the brokers, besides 127.0.0.1 and ::1.
const ServerName = "localhost"

// PKI is a throw-away fleet CA. Certificates carry CN = device and OU = tenant.
type PKI struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  time.Time
}

// Identity is a certificate with its key.
type Identity struct {
	CertPEM []byte
	Key     crypto.Signer
}

// NewPKI makes a CA that is valid for a day around now.
func NewPKI(now time.Time) (*PKI, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the CA key: %w", err)
	}
	p := &PKI{key: key, now: now}
	template := p.template(pkix.Name{CommonName: "throw-away fleet CA"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the CA certificate: %w", err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("cannot read the CA certificate: %w", err)
	}
	p.pem = pemCert(der)
	return p, nil
}

// CAPEM returns the CA certificate.
func (p *PKI) CAPEM() []byte { return append([]byte(nil), p.pem...) }

// Pool returns a pool with only this CA.
func (p *PKI) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	return pool
}

// Server makes a broker certificate for localhost, 127.0.0.1 and ::1. change may alter it before it is signed.
func (p *PKI) Server(change func(*x509.Certificate)) (Identity, error) {
	template := p.template(pkix.Name{CommonName: ServerName})
	template.DNSNames = []string{ServerName}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return p.withNewKey(template, change)
}

// Device makes a device's certificate with a new key in memory. change may alter it before it is signed.
func (p *PKI) Device(tenant, device string, change func(*x509.Certificate)) (Identity, error) {
	if _, err := fleet.NewTopics(tenant, device); err != nil {
		return Identity{}, err
	}
	return p.withNewKey(p.clientTemplate(tenant, device), change)
}

// SignPublicKey makes a device's certificate for a public key whose private key stays where it is.
func (p *PKI) SignPublicKey(pub crypto.PublicKey, tenant, device string) (certPEM []byte, err error) {
	if _, err := fleet.NewTopics(tenant, device); err != nil {
		return nil, err
	}
	return p.sign(p.clientTemplate(tenant, device), pub)
}

// SignRequest makes a device's certificate from a PKCS #10 request in PEM whose subject is CN = device, OU = tenant.
func (p *PKI) SignRequest(csrPEM []byte) (certPEM []byte, err error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		return nil, errors.New("cannot sign the request: no PEM block in it")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot sign the request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("cannot sign the request: its signature does not fit: %w", err)
	}
	if len(csr.Subject.OrganizationalUnit) != 1 {
		return nil, errors.New("cannot sign the request: want exactly one OU, the tenant")
	}
	return p.SignPublicKey(csr.PublicKey, csr.Subject.OrganizationalUnit[0], csr.Subject.CommonName)
}

// Management makes the certificate of a tenant's management side.
func (p *PKI) Management(tenant string) (Identity, error) {
	if err := fleet.ValidateName(tenant); err != nil {
		return Identity{}, err
	}
	return p.withNewKey(p.clientTemplate(tenant, ManagementName), nil)
}

// ClientTLS returns the TLS configuration of id towards a broker of this PKI.
func (p *PKI) ClientTLS(id Identity) (*tls.Config, error) {
	return fleet.TLSConfig(p.pem, id.CertPEM, id.Key, ServerName)
}

// ServerTLS returns a broker's configuration: TLS 1.3 only, client certificates of this PKI required.
func (p *PKI) ServerTLS() (*tls.Config, error) {
	id, err := p.Server(nil)
	if err != nil {
		return nil, err
	}
	cert, err := id.certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              p.Pool(),
		SessionTicketsDisabled: true,
	}, nil
}

// certificate returns id for crypto/tls.
func (id Identity) certificate() (tls.Certificate, error) {
	block, _ := pem.Decode(id.CertPEM)
	if block == nil {
		return tls.Certificate{}, errors.New("cannot use the certificate: no PEM block in it")
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: id.Key}, nil
}

func (p *PKI) template(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		serial = big.NewInt(1) // crypto/rand does not fail; a throw-away serial may repeat
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: p.now.Add(-12 * time.Hour), NotAfter: p.now.Add(12 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (p *PKI) clientTemplate(tenant, name string) *x509.Certificate {
	t := p.template(pkix.Name{CommonName: name, OrganizationalUnit: []string{tenant}})
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return t
}

func (p *PKI) withNewKey(template *x509.Certificate, change func(*x509.Certificate)) (Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("cannot make a key: %w", err)
	}
	if change != nil {
		change(template)
	}
	cert, err := p.sign(template, key.Public())
	return Identity{CertPEM: cert, Key: key}, err
}

func (p *PKI) sign(template *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, pub, p.key)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a certificate: %w", err)
	}
	return pemCert(der), nil
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
