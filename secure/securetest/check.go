package securetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vigil/secure"
	"vigil/secure/mem"
)

// Finding says where a secret can be read.
type Finding struct {
	View
	Secret int // index into the secrets
}

// String names the place, not the secret.
func (f Finding) String() string {
	return fmt.Sprintf("secret %d in exchange %d, command %#x: %s", f.Secret, f.Exchange, f.Command, f.Where)
}

// window is how many consecutive bytes of a secret are a leak.
const window = 16

// Check looks for every window of 16 consecutive bytes of every secret (at
// least 8 bytes each) in all that an eavesdropper can read. encrypted counts the
// encrypted parameters that were tried: a caller that expects some should check
// that it is not 0. It fails when the traffic cannot be judged.
func Check(traffic []Exchange, secrets ...[]byte) (findings []Finding, encrypted int, err error) {
	views, encrypted, err := Eavesdrop(traffic)
	if err != nil {
		return nil, 0, err
	}
	for n, secret := range secrets {
		if len(secret) < 8 {
			return nil, 0, fmt.Errorf("cannot look for secret %d of %d bytes: chance would find it", n, len(secret))
		}
		for _, v := range views {
			if leaks(v.Bytes, secret) {
				findings = append(findings, Finding{View: v, Secret: n})
			}
		}
	}
	return findings, encrypted, nil
}

func leaks(b, secret []byte) bool {
	size := min(window, len(secret))
	for at := 0; at+size <= len(secret); at++ {
		if bytes.Contains(b, secret[at:at+size]) {
			return true
		}
	}
	return false
}

// CheckRoot tries every 32 consecutive bytes that an eavesdropper can read as
// the root secret of the identity in dir, a state folder. It needs no secret to
// be known. A finding says where the root secret is; tried counts the attempts.
func CheckRoot(traffic []Exchange, dir string) (findings []Finding, tried int, err error) {
	views, _, err := Eavesdrop(traffic)
	if err != nil {
		return nil, 0, err
	}
	blobs := make([][]byte, len(views))
	for i, v := range views {
		blobs[i] = v.Bytes
	}
	found, tried, err := FindRoot(dir, blobs...)
	for _, i := range found {
		findings = append(findings, Finding{View: views[i]})
	}
	return findings, tried, err
}

// FindRoot tries every 32 consecutive bytes of the blobs, such as the files of
// a disk, as the root secret of the identity in dir. It returns the indices of
// the blobs that hold it and how many different candidates were tried.
func FindRoot(dir string, blobs ...[]byte) (found []int, tried int, err error) {
	device, kek, err := firstKEK(dir)
	if err != nil {
		return nil, 0, err
	}
	root, err := mem.New(secure.RootBytes)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	seen := make(map[[secure.RootBytes]byte]bool)
	for i, b := range blobs {
		for at := 0; at+secure.RootBytes <= len(b); at++ {
			candidate := [secure.RootBytes]byte(b[at:])
			if seen[candidate] {
				continue
			}
			seen[candidate] = true
			copy(root.Bytes(), candidate[:])
			opened, err := opens(root, device, kek)
			if err != nil {
				return nil, 0, err
			}
			if opened {
				found = append(found, i)
			}
		}
	}
	return found, len(seen), nil
}

func opens(root *mem.Buffer, device string, kek secure.WrappedKEK) (bool, error) {
	ring, err := secure.NewKeyring(root, device, []secure.WrappedKEK{kek})
	if errors.Is(err, secure.ErrTampered) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, ring.Close()
}

// firstKEK reads one wrapped key out of the identity.
func firstKEK(dir string) (device string, kek secure.WrappedKEK, err error) {
	path := filepath.Join(dir, "identity", "keys.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", kek, fmt.Errorf("cannot check root secret: %w", err)
	}
	var file struct {
		Body struct {
			Device string              `json:"device"`
			Keys   []secure.WrappedKEK `json:"keys"`
		} `json:"body"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Body.Keys) == 0 {
		return "", kek, fmt.Errorf("cannot check root secret: %s holds no keys (%v)", path, err)
	}
	return file.Body.Device, file.Body.Keys[0], nil
}
