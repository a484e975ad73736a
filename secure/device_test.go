package secure_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"vigil/secure"
	"vigil/secure/mem"
	"vigil/secure/securetest"
	"vigil/secure/tpm"
)

func noLeak(t testing.TB) {
	t.Helper()
	before, _ := mem.Live()
	files := openFiles(t)
	t.Cleanup(func() {
		if after, _ := mem.Live(); after != before {
			t.Errorf("%d locked buffers are open, before the test it were %d", after, before)
		}
		if after := openFiles(t); after != files {
			t.Errorf("%d files are open, before the test it were %d", after, files)
		}
	})
}

// openFiles counts descriptors, without those that the runtime keeps for itself.
func openFiles(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0 // not Linux's /proc
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			n++
		}
	}
	return n
}

// startTPM runs swtpm for the test.
func startTPM(t *testing.T, dir string, options ...securetest.Option) (addr string, stop func() error) {
	t.Helper()
	noLeak(t)
	addr, stop, err := securetest.StartSWTPM(dir, options...)
	if errors.Is(err, securetest.ErrNoSWTPM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return addr, stop
}

func openTPM(t *testing.T, addr string) *tpm.TPM {
	t.Helper()
	x, err := tpm.Open(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func provision(t *testing.T, addr, dir string) *secure.Device {
	t.Helper()
	d, err := secure.Provision(t.Context(), openTPM(t, addr), dir, secure.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func open(t *testing.T, addr, dir string) *secure.Device {
	t.Helper()
	d, err := secure.Open(t.Context(), openTPM(t, addr), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// openError opens a device that must not open, and gives the TPM back.
func openError(t *testing.T, addr, dir string) error {
	t.Helper()
	x := openTPM(t, addr)
	defer x.Close()
	d, err := secure.Open(t.Context(), x, dir)
	if err == nil {
		d.Close()
	}
	return err
}

var place = secure.AAD{Bucket: "templates", Key: "s-1", Schema: 1}

func TestLife(t *testing.T) {
	state, dir := t.TempDir(), filepath.Join(t.TempDir(), "state")
	addr, stop := startTPM(t, state)
	d := provision(t, addr, dir)
	id := d.DeviceID()
	if len(id) != 16 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("device id is %q", id)
	}
	if !d.TPMInfo().IsSoftware || len(d.PCRs()) != 1 || d.PCRs()[0] != 7 || d.Keyring().Device() != id {
		t.Errorf("info %+v, PCRs %v, keyring of %q", d.TPMInfo(), d.PCRs(), d.Keyring().Device())
	}
	dek, wrapped, err := d.Keyring().NewDEK(secure.Templates, place)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := dek.Seal([]byte("a template"), place)
	if err != nil {
		t.Fatal(err)
	}
	dek.Close()
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if err := d.Ping(); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("ping after Close: %v", err)
	}
	stop()
	addr, _ = startTPM(t, state)
	d = open(t, addr, dir)
	if d.DeviceID() != id || d.Ping() != nil {
		t.Errorf("device id is %q, was %q", d.DeviceID(), id)
	}
	dek, err = d.Keyring().OpenDEK(secure.Templates, wrapped, place)
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Close()
	if got, err := dek.Open(sealed, place); err != nil || string(got) != "a template" {
		t.Errorf("got %q (%v)", got, err)
	}
	d.Close()
	assertPrivate(t, dir)
}

// assertPrivate checks that nobody else can read the state folder.
func assertPrivate(t *testing.T, dir string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		info, statErr := e.Info()
		if err := errors.Join(err, statErr); err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
}

func TestProvisionRefuses(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	dir := t.TempDir()
	if err := openError(t, addr, dir); !errors.Is(err, secure.ErrNotProvisioned) || !strings.Contains(err.Error(), "vigild provision") {
		t.Errorf("open before: %v", err)
	}
	d := provision(t, addr, dir)
	id := d.DeviceID()
	d.Close()
	x := openTPM(t, addr)
	if _, err := secure.Provision(t.Context(), x, dir, secure.Options{}); !errors.Is(err, secure.ErrProvisioned) {
		t.Errorf("twice: %v", err)
	}
	if _, err := secure.Provision(t.Context(), x, t.TempDir(), secure.Options{PCRs: []uint{}}); err == nil {
		t.Error("no PCRs: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := t.TempDir()
	if _, err := secure.Provision(ctx, x, stopped, secure.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, _ := os.ReadDir(stopped); len(left) != 0 {
		t.Errorf("cancelled: left %v", left)
	}
	x.Close()
	if d := open(t, addr, dir); d.DeviceID() != id {
		t.Error("the identity was replaced")
	}
}

func TestPCRMismatch(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	dir := t.TempDir()
	provision(t, addr, dir).Close()
	conn, err := net.Dial("unix", strings.TrimPrefix(addr, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	digest := sha256.Sum256([]byte("another boot loader"))
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 7, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(transport.FromReadWriter(conn))
	conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := openError(t, addr, dir); !errors.Is(err, tpm.ErrPCRMismatch) {
		t.Errorf("got %v", err)
	}
}

func TestOtherTPM(t *testing.T) {
	addr, stop := startTPM(t, t.TempDir())
	dir := t.TempDir()
	provision(t, addr, dir).Close()
	stop()
	other, _ := startTPM(t, t.TempDir())
	if err := openError(t, other, dir); !errors.Is(err, tpm.ErrTPMCleared) {
		t.Errorf("got %v", err)
	}
}

func identity(dir, name string) string { return filepath.Join(dir, "identity", name) }

// TestDamage alters, cuts and removes the files of an identity: an error that
// names the file, every time.
func TestDamage(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	dir, other := t.TempDir(), t.TempDir()
	provision(t, addr, dir).Close()
	provision(t, addr, other).Close()
	x := openTPM(t, addr)
	for _, name := range []string{"device.json", "keys.json"} {
		path := identity(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.ReadFile(identity(other, name))
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string][]byte{
			"empty": {}, "twice": append(bytes.Clone(good), good...), "junk behind": append(bytes.Clone(good), "x"...),
			"huge": bytes.Repeat([]byte(" "), 2<<20), "of another device": theirs, "not JSON": []byte("hello"),
			"another format": bytes.Replace(good, []byte(`"format":1`), []byte(`"format":2`), 1),
			"unknown field":  bytes.Replace(good, []byte(`"format":1`), []byte(`"format":1,"x":1`), 1),
		}
		for at := 0; at < len(good); at += 13 {
			bad["cut"] = good[:at]
			bad["altered"] = bytes.Clone(good)
			bad["altered"][at] ^= 1
			for what, content := range bad {
				wantDamaged(t, x, dir, path, what, content)
			}
			clear(bad)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := secure.Open(t.Context(), x, dir); !errors.Is(err, secure.ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s missing: %v", name, err)
		}
		if _, err := secure.Provision(t.Context(), x, dir, secure.Options{}); !errors.Is(err, secure.ErrProvisioned) {
			t.Errorf("%s missing: provisioning again: %v", name, err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := secure.Open(t.Context(), x, dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func wantDamaged(t *testing.T, x *tpm.TPM, dir, path, what string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := secure.Open(t.Context(), x, dir)
	if err == nil {
		d.Close()
	}
	if !errors.Is(err, secure.ErrDamaged) || !strings.Contains(err.Error(), filepath.Dir(path)) {
		t.Errorf("%s %s: got %v", path, what, err)
	}
}

// TestForgery has somebody who can write the files and knows how: checksums are
// right, but what the TPM and the root secret authenticate is not.
func TestForgery(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	dir := t.TempDir()
	provision(t, addr, dir).Close()
	x := openTPM(t, addr)
	var state secure.DeviceState
	var keys secure.KeysState
	load := func(name string, into any) {
		raw, err := os.ReadFile(identity(dir, name))
		if err == nil {
			err = secure.DecodeState(raw, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save := func(name string, from any) {
		raw, err := secure.EncodeState(from)
		if err == nil {
			err = os.WriteFile(identity(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	load("device.json", &state)
	load("keys.json", &keys)
	for _, c := range []struct {
		name   string
		change func(s *secure.DeviceState, k *secure.KeysState)
		want   error
		file   string
	}{
		{"sealed secret", func(s *secure.DeviceState, _ *secure.KeysState) { s.Root.Private[40] ^= 1 }, tpm.ErrBlob, "device.json"},
		{"signing key", func(s *secure.DeviceState, _ *secure.KeysState) { s.TLS.Private[40] ^= 1 }, tpm.ErrBlob, "device.json"},
		{"signing key's public area", func(s *secure.DeviceState, _ *secure.KeysState) { s.TLS.Public[5] ^= 1 }, secure.ErrDamaged, "device.json"},
		{"pin", func(s *secure.DeviceState, _ *secure.KeysState) { s.SRK.Name[9] ^= 1 }, tpm.ErrBlob, "device.json"},
		{"PCRs", func(s *secure.DeviceState, _ *secure.KeysState) { s.Root.PCRs = []uint{23} }, tpm.ErrPCRMismatch, "device.json"},
		{"PCRs out of range", func(s *secure.DeviceState, _ *secure.KeysState) { s.Root.PCRs = []uint{99} }, tpm.ErrBlob, "device.json"},
		{"device id", func(s *secure.DeviceState, k *secure.KeysState) { s.Device, k.Device = "ff", "ff" }, secure.ErrDamaged, "identity"},
		{"a KEK", func(_ *secure.DeviceState, k *secure.KeysState) { k.Keys[2].Wrapped[40] ^= 1 }, secure.ErrTampered, "keys.json"},
		{"KEKs exchanged", func(_ *secure.DeviceState, k *secure.KeysState) {
			k.Keys[0].Wrapped, k.Keys[1].Wrapped = k.Keys[1].Wrapped, k.Keys[0].Wrapped
		}, secure.ErrTampered, "keys.json"},
	} {
		s, k := clone(t, state), clone(t, keys)
		c.change(&s, &k)
		save("device.json", s)
		save("keys.json", k)
		d, err := secure.Open(t.Context(), x, dir)
		if err == nil {
			d.Close()
		}
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.file) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	if objects, sessions, err := x.Resources(); err != nil || objects != 0 || sessions != 0 {
		t.Errorf("failures left %d objects, %d sessions (%v)", objects, sessions, err)
	}
	save("device.json", state)
	save("keys.json", keys)
	d, err := secure.Open(t.Context(), x, dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func clone[T any](t *testing.T, v T) (out T) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCrashAtEveryWrite stops Provision before, in the middle of and after every
// step on disk: Open then finds the whole identity or none, and provisioning can
// always be done.
func TestCrashAtEveryWrite(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x := openTPM(t, addr)
	steps := 0
	for at, more := 0, true; more; at++ {
		for how := range 3 {
			dir := t.TempDir()
			disk := &secure.StoppingFS{At: at, How: how}
			if more = crashes(t, x, dir, disk); !more {
				break
			}
			steps++
			d, err := secure.Open(t.Context(), x, dir)
			if err != nil {
				if !errors.Is(err, secure.ErrNotProvisioned) {
					t.Fatalf("step %d, %d: half a state: %v", at, how, err)
				}
				if d, err = secure.ProvisionOn(t.Context(), x, dir, secure.Options{}, &secure.StoppingFS{At: -1}); err != nil {
					t.Fatalf("step %d, %d: cannot start over: %v", at, how, err)
				}
			}
			releaseDevice(t, d)
			if x = openTPM(t, addr); len(list(t, dir)) != 1 {
				t.Errorf("step %d, %d: left %v", at, how, list(t, dir))
			}
		}
	}
	if steps != 4*3 {
		t.Errorf("%d crashes; folder, two files and rename make 12", steps)
	}
}

func list(t *testing.T, dir string) []fs.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func releaseDevice(t *testing.T, d *secure.Device) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// crashes provisions until the file system stops it, or closes the device and
// says no when it did not.
func crashes(t *testing.T, x *tpm.TPM, dir string, disk *secure.StoppingFS) (crashed bool) {
	t.Helper()
	var held *secure.Device
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(secure.Crash); !ok {
				panic(p)
			}
			crashed = true
			return
		}
		releaseDevice(t, held)
	}()
	d, err := secure.ProvisionOn(t.Context(), x, dir, secure.Options{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	held = d
	return false
}

// TestFullDisk fails every step on disk: an error, nothing left behind.
func TestFullDisk(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x := openTPM(t, addr)
	full := errors.New("no space left on device")
	for at := range 4 {
		dir := t.TempDir()
		_, err := secure.ProvisionOn(t.Context(), x, dir, secure.Options{}, &secure.StoppingFS{At: at, Err: full})
		if !errors.Is(err, full) || len(list(t, dir)) != 0 {
			t.Errorf("step %d: got %v, left %v", at, err, list(t, dir))
		}
	}
	if objects, sessions, err := x.Resources(); err != nil || objects != 0 || sessions != 0 {
		t.Errorf("failures left %d objects, %d sessions (%v)", objects, sessions, err)
	}
}

// TestNothingInClear looks for the root secret in what crossed to the TPM in the
// life of a device, without knowing it, and proves that the search can find it.
func TestNothingInClear(t *testing.T) {
	log := filepath.Join(t.TempDir(), "swtpm.log")
	addr, stop := startTPM(t, t.TempDir(), securetest.WithLog(log))
	dir := t.TempDir()
	provision(t, addr, dir).Close()
	d := open(t, addr, dir)
	digest := sha256.Sum256(nil)
	if _, err := d.Signer().Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	d.Close()
	// The root secret as only a test can have it: with this TPM and this state.
	x := openTPM(t, addr)
	root := unsealRoot(t, x, dir)
	auth, err := secure.DeriveAuth(root)
	if err != nil {
		t.Fatal(err)
	}
	defer auth.Close()
	x.Close()
	stop()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	traffic, err := securetest.ParseTranscript(f)
	if err != nil {
		t.Fatal(err)
	}
	findings, encrypted, err := securetest.Check(traffic, root.Bytes(), auth.Bytes())
	if err != nil || len(findings) > 0 || encrypted < 10 {
		t.Errorf("%d encrypted parameters, findings %v (%v)", encrypted, findings, err)
	}
	findings, tried, err := securetest.CheckRoot(traffic, dir)
	if err != nil || len(findings) > 0 || tried < 1000 {
		t.Errorf("%d attempts, findings %v (%v)", tried, findings, err)
	}
	leak := append([]byte{0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9}, root.Bytes()...)
	findings, _, err = securetest.CheckRoot([]securetest.Exchange{{Command: leak[:12], Response: leak}}, dir)
	if err != nil || len(findings) != 1 {
		t.Errorf("the search does not find the root secret: %v (%v)", findings, err)
	}
	for _, name := range []string{"device.json", "keys.json"} {
		raw, err := os.ReadFile(identity(dir, name))
		if err != nil || bytes.Contains(raw, root.Bytes()) || bytes.Contains(raw, auth.Bytes()) {
			t.Errorf("%s holds a secret (%v)", name, err)
		}
	}
}

// unsealRoot opens the sealed root secret of the identity in dir.
func unsealRoot(t *testing.T, x *tpm.TPM, dir string) *mem.Buffer {
	t.Helper()
	raw, err := os.ReadFile(identity(dir, "device.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state secure.DeviceState
	if err := secure.DecodeState(raw, &state); err != nil {
		t.Fatal(err)
	}
	if err := x.UseSRK(state.SRK); err != nil {
		t.Fatal(err)
	}
	root, err := x.Unseal(state.Root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func FuzzStateFile(f *testing.F) {
	good, err := secure.EncodeState(secure.KeysState{Device: "0011223344556677", Keys: []secure.WrappedKEK{{Purpose: secure.Audit, Version: 1, Wrapped: make([]byte, 65)}}})
	if err != nil {
		f.Fatal(err)
	}
	device, err := secure.EncodeState(secure.DeviceState{Device: "0011223344556677"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(device)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"format":1,"sha256":"","body":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var keys secure.KeysState
		if err := secure.DecodeState(raw, &keys); err != nil && !errors.Is(err, secure.ErrDamaged) {
			t.Errorf("error without ErrDamaged: %v", err)
		}
		var state secure.DeviceState
		if err := secure.DecodeState(raw, &state); err != nil && !errors.Is(err, secure.ErrDamaged) {
			t.Errorf("error without ErrDamaged: %v", err)
		}
	})
}
