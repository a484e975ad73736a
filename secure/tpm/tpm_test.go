package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"vigil/secure/mem"
	"vigil/secure/securetest"
	"vigil/secure/tpm"
)

// noLeak fails the test when locked memory stays open.
func noLeak(t *testing.T) {
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

func open(t *testing.T, addr string, options ...tpm.Option) *tpm.TPM {
	t.Helper()
	x, err := tpm.Open(addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func openSRK(t *testing.T, addr string, options ...tpm.Option) (*tpm.TPM, tpm.SRK) {
	t.Helper()
	x := open(t, addr, options...)
	pin, err := x.CreateSRK()
	if err != nil {
		t.Fatal(err)
	}
	return x, pin
}

// secret returns a locked copy of content that the test closes.
func secret(t *testing.T, content string) *mem.Buffer {
	t.Helper()
	b, err := mem.FromBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

const rootText = "0123456789abcdefROOTROOTROOTROOT"

func seal(t *testing.T, x *tpm.TPM, pcrs ...uint) tpm.Sealed {
	t.Helper()
	sealed, err := x.Seal(secret(t, rootText), pcrs)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// mustUnseal asserts that the secret comes back.
func mustUnseal(t *testing.T, x *tpm.TPM, sealed tpm.Sealed) {
	t.Helper()
	got, err := x.Unseal(sealed)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if string(got.Bytes()) != rootText {
		t.Error("another secret came back")
	}
}

// raw connects for commands of the test's own; no other client may be connected.
func raw(t *testing.T, addr string, operation func(transport.TPM)) {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(addr, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	operation(transport.FromReadWriter(conn))
}

func extend(t *testing.T, x transport.TPM, pcr uint) {
	t.Helper()
	digest := sha256.Sum256([]byte("another boot loader"))
	if _, err := (tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}).Execute(x); err != nil {
		t.Fatal(err)
	}
}

func TestInfo(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x := open(t, addr)
	got := x.Info()
	if got.Manufacturer != "IBM" || !got.IsSoftware || got.Transport != "socket" || got.Address != addr || got.Firmware == "0.0.0.0" {
		t.Errorf("got %+v", got)
	}
	if err := x.Ping(); err != nil {
		t.Error(err)
	}
}

func TestNoTPM(t *testing.T) {
	for _, addr := range []string{"unix:" + filepath.Join(t.TempDir(), "none.sock"), "/dev/null-tpm", "/etc/passwd"} {
		_, err := tpm.Open(addr)
		if !errors.Is(err, tpm.ErrNoTPM) || !strings.Contains(err.Error(), "swtpm socket --tpm2 --tpmstate dir=") {
			t.Errorf("%s: got %v", addr, err)
		}
	}
}

func TestNeedsSRK(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x := open(t, addr)
	if _, err := x.Seal(secret(t, rootText), []uint{7}); !errors.Is(err, tpm.ErrNoSRK) {
		t.Errorf("got %v", err)
	}
}

func TestSealAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	addr, stop := startTPM(t, dir)
	x, pin := openSRK(t, addr)
	for _, pcrs := range [][]uint{{7}, {0, 7, 16}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		mustUnseal(t, x, seal(t, x, pcrs...))
	}
	sealed := seal(t, x, 7)
	x.Close()
	x = open(t, addr)
	if err := x.UseSRK(pin); err != nil {
		t.Fatal(err)
	}
	mustUnseal(t, x, sealed)
	x.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	addr, _ = startTPM(t, dir)
	x = open(t, addr)
	if err := x.UseSRK(pin); err != nil {
		t.Fatal(err)
	}
	mustUnseal(t, x, sealed)
}

func TestSealRefuses(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, _ := openSRK(t, addr)
	long := secret(t, strings.Repeat("x", 129))
	for _, c := range []struct {
		secret *mem.Buffer
		pcrs   []uint
	}{
		{&mem.Buffer{}, []uint{7}}, {long, []uint{7}},
		{secret(t, rootText), nil}, {secret(t, rootText), []uint{24}}, {secret(t, rootText), []uint{7, 7}}, {secret(t, rootText), []uint{7, 0}},
	} {
		if _, err := x.Seal(c.secret, c.pcrs); err == nil {
			t.Errorf("%d bytes, PCRs %v: no error", c.secret.Len(), c.pcrs)
		}
	}
}

func TestPCRMismatch(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, pin := openSRK(t, addr)
	sealed, other := seal(t, x, 7), seal(t, x, 8)
	x.Close()
	raw(t, addr, func(r transport.TPM) { extend(t, r, 7) })
	x = open(t, addr)
	if err := x.UseSRK(pin); err != nil {
		t.Fatal(err)
	}
	for range 10 { // failures must not use up the TPM's sessions or lock it
		if _, err := x.Unseal(sealed); !errors.Is(err, tpm.ErrPCRMismatch) {
			t.Fatalf("got %v", err)
		}
	}
	mustUnseal(t, x, other)
	values, err := x.ReadPCRs([]uint{7, 8})
	if err != nil || bytes.Equal(values[0], values[1]) {
		t.Errorf("PCRs read as %x (%v)", values, err)
	}
}

func TestCleared(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, pin := openSRK(t, addr)
	x.Close()
	raw(t, addr, func(r transport.TPM) {
		if _, err := (tpm2.Clear{AuthHandle: tpm2.TPMRHLockout}).Execute(r); err != nil {
			t.Fatal(err)
		}
	})
	x = open(t, addr)
	err := x.UseSRK(pin)
	if !errors.Is(err, tpm.ErrTPMCleared) || !strings.Contains(err.Error(), "provision again") {
		t.Errorf("cleared TPM: got %v", err)
	}
	if _, err := x.Seal(secret(t, rootText), []uint{7}); !errors.Is(err, tpm.ErrNoSRK) {
		t.Errorf("used after a refused pin: %v", err)
	}
	addr, _ = startTPM(t, t.TempDir())
	if err := open(t, addr).UseSRK(pin); !errors.Is(err, tpm.ErrTPMCleared) {
		t.Errorf("another TPM: got %v", err)
	}
}

// TestHandleTaken has another program's key at the SRK's persistent handle.
func TestHandleTaken(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	var other tpm2.TPM2BName
	raw(t, addr, func(r transport.TPM) {
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.RSASRKTemplate)}.Execute(r)
		if err != nil {
			t.Fatal(err)
		}
		other = rsp.Name
		if _, err := (tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name},
			PersistentHandle: 0x81000001,
		}).Execute(r); err != nil {
			t.Fatal(err)
		}
	})
	x, pin := openSRK(t, addr)
	sealed := seal(t, x, 7)
	x.Close()
	x = open(t, addr)
	if err := x.UseSRK(pin); err != nil {
		t.Fatal(err)
	}
	mustUnseal(t, x, sealed)
	x.Close()
	raw(t, addr, func(r transport.TPM) {
		rsp, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81000001)}.Execute(r)
		if err != nil || !bytes.Equal(rsp.Name.Buffer, other.Buffer) {
			t.Errorf("the other key was touched: %v", err)
		}
	})
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestBadBlobs(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, pin := openSRK(t, addr)
	good := seal(t, x, 7)
	for name, change := range map[string]func(*tpm.Sealed){
		"no public":         func(s *tpm.Sealed) { s.Public = nil },
		"no private":        func(s *tpm.Sealed) { s.Private = nil },
		"huge private":      func(s *tpm.Sealed) { s.Private = make([]byte, 1<<20) },
		"truncated public":  func(s *tpm.Sealed) { s.Public = s.Public[:len(s.Public)/2] },
		"truncated private": func(s *tpm.Sealed) { s.Private = s.Private[:len(s.Private)/2] },
		"bytes left over":   func(s *tpm.Sealed) { s.Public = append(bytes.Clone(s.Public), 0) },
		"altered public":    func(s *tpm.Sealed) { s.Public = flip(s.Public, len(s.Public)-1) },
		"altered policy":    func(s *tpm.Sealed) { s.Public = flip(s.Public, 12) },
		"altered private":   func(s *tpm.Sealed) { s.Private = flip(s.Private, len(s.Private)-1) },
		"altered size":      func(s *tpm.Sealed) { s.Private = flip(s.Private, 0) },
		"no PCRs":           func(s *tpm.Sealed) { s.PCRs = nil },
	} {
		bad := good
		change(&bad)
		if got, err := x.Unseal(bad); !errors.Is(err, tpm.ErrBlob) {
			got.Close()
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, bad := range map[string]tpm.SRK{
		"empty":          {},
		"altered public": {Public: flip(pin.Public, len(pin.Public)-1), Name: pin.Name},
		"altered name":   {Public: pin.Public, Name: flip(pin.Name, 5)},
		"other kind":     {Public: good.Public, Name: pin.Name},
	} {
		if err := x.UseSRK(bad); !errors.Is(err, tpm.ErrBlob) {
			t.Errorf("pin, %s: got %v", name, err)
		}
	}
	mustUnseal(t, x, good)
}

func newSigner(t *testing.T, x *tpm.TPM) (*tpm.Signer, tpm.Blob) {
	t.Helper()
	blob, err := x.CreateSigningKey(secret(t, "00112233445566778899aabbccddeeff"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := x.LoadSigner(blob, secret(t, "00112233445566778899aabbccddeeff"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, blob
}

func TestSigner(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, _ := openSRK(t, addr)
	s, blob := newSigner(t, x)
	digest := sha256.Sum256([]byte("message"))
	der, err := s.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm.SigningPublic(blob)
	if err != nil || !public.Equal(s.Public()) || !ecdsa.VerifyASN1(public, digest[:], der) {
		t.Errorf("the signature does not verify (%v)", err)
	}
	if _, err := s.Sign(nil, digest[:31], crypto.SHA256); err == nil {
		t.Error("signed a short digest")
	}
	if _, err := s.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("signed a SHA-384 digest")
	}
	wrong, err := x.LoadSigner(blob, secret(t, "ffffffffffffffffffffffffffffffff"))
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Sign(nil, digest[:], crypto.SHA256); err == nil {
		t.Error("signed with the wrong authorisation")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("after Close: %v", err)
	}
	for _, auth := range []string{"with\x00zero", strings.Repeat("x", 33)} {
		if _, err := x.CreateSigningKey(secret(t, auth)); err == nil {
			t.Errorf("authorisation %q: no error", auth)
		}
	}
}

// TestResourcesAreStable asserts that 200 operations, a third of them failing
// and several at a time, leave nothing in the TPM.
func TestResourcesAreStable(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, _ := openSRK(t, addr)
	s, _ := newSigner(t, x)
	sealed := seal(t, x, 7)
	altered := sealed
	altered.Private = flip(sealed.Private, 20)
	objects, sessions, err := x.Resources()
	if err != nil || objects != 1 || sessions != 0 {
		t.Fatalf("%d objects, %d sessions before (%v)", objects, sessions, err)
	}
	digest := sha256.Sum256([]byte("message"))
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range 50 {
				switch i % 3 {
				case 0:
					if _, err := s.Sign(nil, digest[:], crypto.SHA256); err != nil {
						t.Error(err)
					}
				case 1:
					if b, err := x.Unseal(sealed); err != nil {
						t.Error(err)
					} else {
						b.Close()
					}
				case 2:
					if _, err := x.Unseal(altered); !errors.Is(err, tpm.ErrBlob) {
						t.Error(err)
					}
				}
			}
		})
	}
	workers.Wait()
	if o, n, err := x.Resources(); err != nil || o != objects || n != sessions {
		t.Errorf("%d objects, %d sessions after (%v)", o, n, err)
	}
	s.Close()
	if o, n, err := x.Resources(); err != nil || o != 0 || n != 0 {
		t.Errorf("%d objects, %d sessions after Close (%v)", o, n, err)
	}
}

// TestOpenFlushesStale plays a process that died with everything loaded.
func TestOpenFlushesStale(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	raw(t, addr, func(r transport.TPM) {
		for range 3 {
			if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(r); err != nil {
				t.Fatal(err)
			}
			if _, _, err := tpm2.HMACSession(r, tpm2.TPMAlgSHA256, 16); err != nil {
				t.Fatal(err)
			}
		}
	})
	x, _ := openSRK(t, addr)
	if o, s, err := x.Resources(); err != nil || o != 0 || s != 0 {
		t.Errorf("%d objects, %d sessions (%v)", o, s, err)
	}
	mustUnseal(t, x, seal(t, x, 7))
}

func commandCode(cmd []byte) tpm2.TPMCC { return tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])) }

func failWith(rc tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, 10}, uint32(rc))
}

func TestLockedOut(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	p := proxy(t, addr, securetest.Mangle{Response: func(cmd, rsp []byte) []byte {
		if commandCode(cmd) == tpm2.TPMCCUnseal {
			return failWith(tpm2.TPMRCLockout)
		}
		return rsp
	}})
	x, _ := openSRK(t, p.Addr())
	_, err := x.Unseal(seal(t, x, 7))
	if !errors.Is(err, tpm.ErrLocked) || !strings.Contains(err.Error(), "tpm2_dictionarylockout") {
		t.Errorf("got %v", err)
	}
}

// TestRetries has the TPM ask twice for every command to be sent again.
func TestRetries(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	var mu sync.Mutex
	asked := make(map[string]int)
	p := proxy(t, addr, securetest.Mangle{Command: func(cmd []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if commandCode(cmd) == tpm2.TPMCCReadClock && asked["n"] < 2 {
			asked["n"]++
			return []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0xff} // unknown command, answered below
		}
		return cmd
	}, Response: func(cmd, rsp []byte) []byte {
		if commandCode(cmd) == tpm2.TPMCCReadClock && binary.BigEndian.Uint32(rsp[6:]) != 0 {
			return failWith(tpm2.TPMRCRetry)
		}
		return rsp
	}})
	x := open(t, p.Addr())
	if err := x.Ping(); err != nil {
		t.Error(err)
	}
	if asked["n"] != 2 {
		t.Errorf("asked %d times", asked["n"])
	}
}

// proxy puts a proxy in front of the TPM for the test.
func proxy(t *testing.T, addr string, m securetest.Mangle) *securetest.Proxy {
	t.Helper()
	p, err := securetest.StartProxy(addr, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestGone takes the TPM away in the middle of an operation.
func TestGone(t *testing.T) {
	addr, stop := startTPM(t, t.TempDir())
	x, _ := openSRK(t, addr)
	s, _ := newSigner(t, x)
	sealed := seal(t, x, 7)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Unseal(sealed); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(s.Close(), x.Close(), x.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := x.Ping(); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("after Close: %v", err)
	}
}

// TestSilence has a TPM that stops answering: an error in bounded time, and a
// late answer is never taken for the next one.
func TestSilence(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	letGo := make(chan struct{})
	silent := false
	p := proxy(t, addr, securetest.Mangle{Response: func(cmd, rsp []byte) []byte {
		if commandCode(cmd) == tpm2.TPMCCReadClock && !silent {
			silent = true
			<-letGo
		}
		return rsp
	}})
	x := open(t, p.Addr(), tpm.WithTimeout(300*time.Millisecond))
	begin := time.Now()
	if err := x.Ping(); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	close(letGo)
	if err := x.Ping(); !errors.Is(err, tpm.ErrGone) {
		t.Errorf("the connection was used again: %v", err)
	}
}

// TestBusy has another client on the single connection of swtpm.
func TestBusy(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	open(t, addr)
	_, err := tpm.Open(addr, tpm.WithTimeout(200*time.Millisecond))
	if !errors.Is(err, tpm.ErrGone) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
}
