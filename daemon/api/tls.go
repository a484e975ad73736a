package api

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"vigil/daemon/config"
)

// tlsConfig is TLS 1.3 with a certificate on both sides. inTPM signs where the configuration says so. Errors name the file and
// the remedy.
func tlsConfig(cfg *config.TCP, inTPM crypto.Signer) (*tls.Config, error) {
	chain, err := os.ReadFile(cfg.Certificate)
	if err != nil {
		return nil, fmt.Errorf("api.tcp.certificate: %w", err)
	}
	var cert tls.Certificate
	if cfg.Key == config.KeyInTPM {
		cert, err = withSigner(chain, inTPM)
	} else {
		cert, err = withKeyFile(chain, cfg.Key)
	}
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(cfg.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("api.tcp.client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("api.tcp.client_ca: %s holds no certificate in PEM", cfg.ClientCA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, nil
}

// withKeyFile reads the key, which must be for the daemon's user alone.
func withKeyFile(chain []byte, path string) (tls.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("api.tcp.key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s has mode %04o: others may read it: chmod 0600", path, info.Mode().Perm())
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("api.tcp.key: %w", err)
	}
	key := make([]byte, min(info.Size(), 64<<10))
	defer clear(key)
	n, err := f.ReadAt(key, 0)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("api.tcp.key: %w", err)
	}
	cert, err := tls.X509KeyPair(chain, key[:n])
	if err != nil {
		return cert, fmt.Errorf("api.tcp: certificate and key do not make a pair: %w", err)
	}
	return cert, nil
}

// withSigner makes a chain for a key that stays where it is.
func withSigner(chain []byte, key crypto.Signer) (tls.Certificate, error) {
	cert := tls.Certificate{PrivateKey: key}
	for rest := chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return cert, errors.New("api.tcp.certificate: the file holds no certificate in PEM")
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return cert, fmt.Errorf("api.tcp.certificate: %w", err)
	}
	own, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(leaf.PublicKey) {
		return cert, errors.New("api.tcp.certificate: it is not for the key in this device's TPM: have the request of `vigild provision` signed")
	}
	cert.Leaf = leaf
	return cert, nil
}
