package fleet

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Sentinels for states that a caller shows to people.
var (
	// ErrClock: a certificate is not valid yet by this device's clock, so the clock is probably wrong.
	ErrClock = errors.New("the clock of this device may be wrong")
	// ErrCertificate: the device's certificate is expired or does not fit its key.
	ErrCertificate = errors.New("cannot use the client certificate")
)

// TLSConfig makes the client side of mutual TLS 1.3. caPEM holds the fleet CA, the only root that is trusted; certPEM the
// device's certificate followed by its intermediates; key is the private key of the certificate (it may live in a TPM:
// only Sign is called, from handshakes); serverName is the name the broker's certificate must carry.
//
// Validity periods are checked at each connection, not here (CheckValidity), so that a device that boots with a wrong
// clock recovers when the clock is set. Errors about the certificate match ErrCertificate and name the remedy.
func TLSConfig(caPEM, certPEM []byte, key crypto.Signer, serverName string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("cannot use the fleet CA: no certificate in the PEM; install the CA certificate of the fleet")
	}
	if serverName == "" {
		return nil, errors.New("cannot verify the broker: no server name; set the name in the broker's certificate")
	}
	chain, leaf, err := clientChain(certPEM)
	if err != nil {
		return nil, err
	}
	if err := fitsKey(leaf, key); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		RootCAs:      roots,
		ServerName:   serverName,
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key, Leaf: leaf}},
	}, nil
}

func clientChain(certPEM []byte) ([][]byte, *x509.Certificate, error) {
	var chain [][]byte
	for block, rest := pem.Decode(certPEM); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	if len(chain) == 0 {
		return nil, nil, fmt.Errorf("%w: no certificate in the PEM; have the fleet CA sign this device's request", ErrCertificate)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%w: it does not parse; install it again", ErrCertificate)
	}
	return chain, leaf, nil
}

func fitsKey(leaf *x509.Certificate, key crypto.Signer) error {
	if key == nil {
		return fmt.Errorf("%w: there is no key for it; provision the device first", ErrCertificate)
	}
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("%w: it does not fit the key in this device's TPM; have the fleet CA sign a new request of this device", ErrCertificate)
	}
	for _, usage := range leaf.ExtKeyUsage {
		if usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny {
			return nil
		}
	}
	if len(leaf.ExtKeyUsage) > 0 {
		return fmt.Errorf("%w: it is not for client authentication; have the fleet CA sign it for that use", ErrCertificate)
	}
	return nil
}

// CheckValidity reports whether cfg's client certificate is valid at now. A certificate that is not valid yet matches
// ErrClock, an expired one ErrCertificate.
func CheckValidity(cfg *tls.Config, now time.Time) error {
	if len(cfg.Certificates) == 0 || cfg.Certificates[0].Leaf == nil {
		return fmt.Errorf("%w: there is none; make the configuration with TLSConfig", ErrCertificate)
	}
	leaf := cfg.Certificates[0].Leaf
	if now.Before(leaf.NotBefore) {
		return fmt.Errorf("cannot use the client certificate before %s: %w (it shows %s); set it", stamp(leaf.NotBefore), ErrClock, stamp(now))
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("%w: it expired at %s (clock: %s); have the fleet CA renew it", ErrCertificate, stamp(leaf.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// explainDial turns an error of the TCP or TLS handshake into one that names the remedy. now is the clock that judged.
func explainDial(err error, addr string, now time.Time) error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
		return fmt.Errorf("cannot trust broker %s: its certificate is not yet valid: %w (it shows %s, the certificate starts %s); set it",
			addr, ErrClock, stamp(now), stamp(invalid.Cert.NotBefore))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("cannot trust broker %s: its certificate expired at %s (clock: %s); renew it on the broker",
			addr, stamp(invalid.Cert.NotAfter), stamp(now))
	case errors.As(err, &unknown):
		return fmt.Errorf("cannot trust broker %s: its certificate is not signed by the fleet CA; check the address and the installed CA", addr)
	case errors.As(err, &host):
		return fmt.Errorf("cannot trust broker %s: its certificate is for another name; check the configured server name", addr)
	}
	if errors.Is(err, packets.ErrorRefusedNotAuthorised) || errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword) {
		return fmt.Errorf("cannot connect to broker %s: %v; check what it allows to this certificate", addr, err)
	}
	if remedy := alertRemedy(err); remedy != "" {
		return fmt.Errorf("cannot connect to broker %s: %v; %s", addr, err, remedy)
	}
	return fmt.Errorf("cannot connect to broker %s: %w; the next attempt follows by itself", addr, err)
}

// alertRemedy names the remedy for the alerts with which a broker refuses us. In TLS 1.3 they arrive after the handshake,
// with the first read. crypto/tls has no exported type for them, so their text is compared; it only chooses words.
func alertRemedy(err error) string {
	text := err.Error()
	for alert, remedy := range map[string]string{
		"protocol version not supported": "the broker has no TLS 1.3; switch it on there",
		"expired certificate":            "the broker says this device's certificate is expired; renew it, or set the broker's clock",
		"unknown certificate authority":  "the broker does not know the CA of this device's certificate; install the fleet CA there",
		"bad certificate":                "the broker does not take this device's certificate; have the fleet CA sign a new request",
		"unknown certificate":            "the broker does not take this device's certificate; have the fleet CA sign a new request",
		"certificate required":           "the broker wants a client certificate; provision one",
		"handshake failure":              "the broker and this device share no TLS 1.3 parameters; update the broker",
	} {
		if strings.HasSuffix(text, "tls: "+alert) {
			return remedy
		}
	}
	return ""
}
