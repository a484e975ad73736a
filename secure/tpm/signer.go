package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"vigil/secure/mem"
)

// maxAuthBytes is the size of the name algorithm's digest, the longest
// authorisation value an object takes.
const maxAuthBytes = 32

// CreateSigningKey makes an ECC P-256 signing key that never leaves this TPM
// and signs only for who knows auth (1 to 32 bytes, none of them zero; stays
// the caller's).
func (t *TPM) CreateSigningKey(auth *mem.Buffer) (Blob, error) {
	if err := checkAuth(auth); err != nil {
		return Blob{}, err
	}
	var blob Blob
	err := t.with("create the signing key", func(x transport.TPM, key *srk) (err error) {
		blob, err = create(x, key, tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth.Bytes()},
		}, signingTemplate())
		return err
	})
	return blob, err
}

func checkAuth(auth *mem.Buffer) error {
	if n := auth.Len(); n == 0 || n > maxAuthBytes || bytes.IndexByte(auth.Bytes(), 0) >= 0 {
		return fmt.Errorf("cannot use a key authorisation of %d bytes: it must have 1 to %d, none of them zero", n, maxAuthBytes)
	}
	return nil
}

func signingTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
	}
}

// SigningPublic returns the public key of a blob that CreateSigningKey made,
// without the TPM. It fails with ErrBlob.
func SigningPublic(blob Blob) (*ecdsa.PublicKey, error) {
	public, err := unmarshalPublic(blob.Public)
	if err != nil {
		return nil, err
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("cannot use signing key: not an ECC key: %w", ErrBlob)
	}
	like := signingTemplate()
	like.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, point)
	if !bytes.Equal(tpm2.Marshal(like), blob.Public) {
		return nil, fmt.Errorf("cannot use signing key: not made by this program: %w", ErrBlob)
	}
	parameters, err := public.Parameters.ECCDetail()
	if err != nil {
		return nil, fmt.Errorf("cannot use signing key: %v: %w", err, ErrBlob)
	}
	// ECDHPub checks that the point is on the curve.
	if _, err := tpm2.ECDHPub(parameters, point); err != nil {
		return nil, fmt.Errorf("cannot use signing key: %v: %w", err, ErrBlob)
	}
	return tpm2.ECDSAPub(parameters, point)
}

// Signer is a signing key loaded in the TPM. It implements crypto.Signer with
// ECDSA over SHA-256 digests and is safe for concurrent use.
type Signer struct {
	t      *TPM
	public *ecdsa.PublicKey

	mu     sync.RWMutex // held for reading while signing
	key    loaded
	auth   *mem.Buffer
	closed bool
}

var _ crypto.Signer = (*Signer)(nil)

// LoadSigner loads a key made by CreateSigningKey and takes ownership of auth,
// also when it fails. The key stays in the TPM until Close. Errors: ErrBlob,
// ErrLocked, ErrGone. A wrong auth shows at the first Sign.
func (t *TPM) LoadSigner(blob Blob, auth *mem.Buffer) (*Signer, error) {
	s, err := t.loadSigner(blob, auth)
	if err != nil {
		auth.Close()
		return nil, err
	}
	return s, nil
}

func (t *TPM) loadSigner(blob Blob, auth *mem.Buffer) (*Signer, error) {
	if err := checkAuth(auth); err != nil {
		return nil, err
	}
	public, err := SigningPublic(blob)
	if err != nil {
		return nil, err
	}
	s := &Signer{t: t, public: public, auth: auth}
	err = t.with("load the signing key", func(x transport.TPM, key *srk) (err error) {
		s.key, err = load(x, key, blob)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Public returns the *ecdsa.PublicKey.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs a SHA-256 digest and returns an ASN.1 DER signature, as
// ecdsa.SignASN1 does. The random source is the TPM's; the argument is ignored.
// The signature is verified before it is returned. Blocks while the TPM does
// other work.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("cannot sign: the device key signs SHA-256 digests only")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("cannot sign: key closed: %w", ErrGone)
	}
	var der []byte
	err := s.t.with("sign with the device key", func(x transport.TPM, key *srk) (err error) {
		der, err = s.sign(x, key, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(s.public, digest, der) {
		return nil, errors.New("cannot sign: the TPM gave a wrong signature")
	}
	return der, nil
}

func (s *Signer) sign(x transport.TPM, key *srk, digest []byte) ([]byte, error) {
	rsp, err := tpm2.Sign{
		KeyHandle:  tpm2.AuthHandle{Handle: s.key.handle, Name: s.key.name, Auth: key.encryptIn(s.auth.Bytes())},
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(x)
	if err != nil {
		return nil, err
	}
	signature, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		return nil, fmt.Errorf("the TPM gave no ECDSA signature: %v", err)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(signature.SignatureR.Buffer),
		new(big.Int).SetBytes(signature.SignatureS.Buffer),
	})
}

// Close takes the key out of the TPM and zeroes its authorisation. It waits for
// signatures in progress; closing twice is harmless, and so is closing after the
// TPM was closed or lost.
func (s *Signer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.t.do("release the signing key", func(x transport.TPM) error { return flush(x, s.key.handle) })
	if errors.Is(err, ErrGone) {
		err = nil // the connection took the key with it
	}
	return errors.Join(err, s.auth.Close())
}
