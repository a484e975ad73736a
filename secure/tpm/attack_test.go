package tpm_test

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"vigil/secure/mem"
	"vigil/secure/securetest"
	"vigil/secure/tpm"
)

// sessionAttributes finds the attribute byte of the first session of a command
// with that many handles.
func sessionAttributes(cmd []byte, handles int) *byte {
	at := 10 + 4*handles + 4 + 4
	return &cmd[at+2+int(binary.BigEndian.Uint16(cmd[at:]))]
}

// attack is somebody on the bus while a secret is sealed or opened. Every one
// must lead to an error and to no finding.
type attack struct {
	name    string
	command func(cmd []byte) []byte
	answer  func(cmd, rsp []byte) []byte
	want    error // nil: any error
}

func attacks() []attack {
	alter := func(cc tpm2.TPMCC, change func(cmd []byte)) func([]byte) []byte {
		return func(cmd []byte) []byte {
			if commandCode(cmd) == cc {
				change(cmd)
			}
			return cmd
		}
	}
	lie := func(cc tpm2.TPMCC, change func(rsp []byte) []byte) func(cmd, rsp []byte) []byte {
		return func(cmd, rsp []byte) []byte {
			if commandCode(cmd) == cc && binary.BigEndian.Uint32(rsp[6:]) == 0 {
				return change(bytes.Clone(rsp))
			}
			return rsp
		}
	}
	return []attack{
		{name: "strip encryption of the answer to Unseal",
			command: alter(tpm2.TPMCCUnseal, func(cmd []byte) { *sessionAttributes(cmd, 1) &^= 1 << 6 })},
		{name: "strip encryption of the input of Create",
			command: alter(tpm2.TPMCCCreate, func(cmd []byte) { *sessionAttributes(cmd, 1) &^= 1 << 5 })},
		{name: "start sessions without salt",
			command: func(cmd []byte) []byte {
				if commandCode(cmd) != tpm2.TPMCCStartAuthSession {
					return cmd
				}
				return unsalt(cmd)
			}},
		{name: "start sessions without cipher",
			command: func(cmd []byte) []byte {
				if commandCode(cmd) != tpm2.TPMCCStartAuthSession {
					return cmd
				}
				// AES, 128, CFB, SHA256 -> NULL, SHA256
				return sized(append(cmd[:len(cmd)-8], 0x00, 0x10, 0x00, 0x0b))
			}},
		{name: "answer Unseal with a secret of one's own",
			answer: lie(tpm2.TPMCCUnseal, func(rsp []byte) []byte { rsp[20] ^= 1; return rsp })},
		{name: "answer Unseal without sessions",
			answer: lie(tpm2.TPMCCUnseal, func(rsp []byte) []byte {
				return sized(append([]byte{0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}, make([]byte, 32)...))
			})},
		{name: "alter the answer to Create",
			answer: lie(tpm2.TPMCCCreate, func(rsp []byte) []byte { rsp[40] ^= 1; return rsp })},
		{name: "answer PCRRead with other values",
			answer: lie(tpm2.TPMCCPCRRead, func(rsp []byte) []byte { rsp[len(rsp)-80] ^= 1; return rsp })},
		{name: "load another object",
			answer: lie(tpm2.TPMCCLoad, func(rsp []byte) []byte { rsp[len(rsp)-60] ^= 1; return rsp })},
		{name: "cut the answer to Unseal short",
			answer: lie(tpm2.TPMCCUnseal, func(rsp []byte) []byte { return sized(rsp[:30]) })},
		{name: "announce a huge answer",
			answer: lie(tpm2.TPMCCUnseal, func(rsp []byte) []byte { binary.BigEndian.PutUint32(rsp[2:], 1<<30); return rsp }), want: tpm.ErrGone},
		{name: "answer with less than a header",
			answer: lie(tpm2.TPMCCLoad, func(rsp []byte) []byte { binary.BigEndian.PutUint32(rsp[2:], 3); return rsp }), want: tpm.ErrGone},
	}
}

// sized corrects the size in the header.
func sized(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame[2:], uint32(len(frame)))
	return frame
}

// unsalt rewrites StartAuthSession to have no salt key and no salt.
func unsalt(cmd []byte) []byte {
	out := bytes.Clone(cmd[:10])
	out = binary.BigEndian.AppendUint32(out, uint32(tpm2.TPMRHNull))
	out = append(out, cmd[14:18]...)
	nonce := 2 + int(binary.BigEndian.Uint16(cmd[18:]))
	out = append(out, cmd[18:18+nonce]...)
	salt := cmd[18+nonce:]
	out = append(out, 0, 0)
	return sized(append(out, salt[2+int(binary.BigEndian.Uint16(salt)):]...))
}

// TestAttacksFailClosed seals and opens a secret through somebody who changes
// the traffic, and then looks for the secret in all of it.
func TestAttacksFailClosed(t *testing.T) {
	addr, stop := startTPM(t, t.TempDir())
	defer stop()
	x, pin := openSRK(t, addr)
	sealed := seal(t, x, 7)
	x.Close()
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			p := proxy(t, addr, securetest.Mangle{Command: a.command, Response: a.answer})
			defer p.Close()
			x := open(t, p.Addr())
			defer x.Close()
			if err := x.UseSRK(pin); err != nil {
				t.Fatal(err)
			}
			opened, err := x.Unseal(sealed)
			opened.Close()
			_, again := x.Seal(secret(t, rootText), []uint{7})
			if err == nil && again == nil {
				t.Error("neither Seal nor Unseal noticed")
			}
			if a.want != nil && !errors.Is(err, a.want) && !errors.Is(again, a.want) {
				t.Errorf("got %v and %v, want %v", err, again, a.want)
			}
			findings, _, err := securetest.Check(p.Exchanges(), []byte(rootText))
			for _, f := range findings {
				t.Errorf("leak: %v", f)
			}
			if err != nil {
				t.Logf("not all of it can be judged: %v", err)
			}
		})
	}
}

// TestFalseSRK has somebody answer with a key of their own for the SRK.
func TestFalseSRK(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, pin := openSRK(t, addr)
	sealed := seal(t, x, 7)
	x.Close()
	swap := func(cmd, rsp []byte) []byte {
		// The point lies at the end of the public area; one of its bytes is
		// enough to make it another key.
		if cc := commandCode(cmd); cc == tpm2.TPMCCReadPublic || cc == tpm2.TPMCCCreatePrimary {
			if at := bytes.Index(rsp, pin.Public); at >= 0 {
				rsp = bytes.Clone(rsp)
				rsp[at+len(pin.Public)-1] ^= 1
			}
		}
		return rsp
	}
	x = open(t, proxy(t, addr, securetest.Mangle{Response: swap}).Addr())
	err := x.UseSRK(pin)
	if err == nil || (!errors.Is(err, tpm.ErrTPMCleared) && !errors.Is(err, tpm.ErrBlob)) {
		t.Errorf("got %v", err)
	}
	if opened, err := x.Unseal(sealed); !errors.Is(err, tpm.ErrNoSRK) {
		opened.Close()
		t.Errorf("unsealed: %v", err)
	}
}

// TestImpostor has another TPM claim the pinned public area: it cannot decrypt
// the salt.
func TestImpostor(t *testing.T) {
	addr, _ := startTPM(t, t.TempDir())
	x, pin := openSRK(t, addr)
	sealed := seal(t, x, 7)
	other, _ := startTPM(t, t.TempDir())
	y, theirs := openSRK(t, other)
	y.Close()
	p := proxy(t, other, securetest.Mangle{Response: func(cmd, rsp []byte) []byte {
		return bytes.ReplaceAll(rsp, theirs.Public, pin.Public)
	}})
	y = open(t, p.Addr())
	if err := y.UseSRK(pin); err != nil {
		t.Fatalf("the impostor was not convincing: %v", err)
	}
	if opened, err := y.Unseal(sealed); err == nil {
		opened.Close()
		t.Error("unsealed at an impostor")
	}
	if _, err := y.Seal(secret(t, rootText), []uint{7}); err == nil {
		t.Error("sealed at an impostor")
	}
	if findings, _, err := securetest.Check(p.Exchanges(), []byte(rootText)); err != nil || len(findings) > 0 {
		t.Errorf("leaks: %v (%v)", findings, err)
	}
}

// TestTranscript looks for secrets in swtpm's own log of a whole life.
func TestTranscript(t *testing.T) {
	log := filepath.Join(t.TempDir(), "swtpm.log")
	addr, stop := startTPM(t, t.TempDir(), securetest.WithLog(log))
	x, _ := openSRK(t, addr)
	mustUnseal(t, x, seal(t, x, 7))
	s, _ := newSigner(t, x)
	if _, err := s.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	random := secret(t, string(make([]byte, 40)))
	if err := x.Random(random.Bytes()); err != nil || bytes.Equal(random.Bytes()[8:], make([]byte, 32)) {
		t.Fatalf("random bytes are zero (%v)", err)
	}
	s.Close()
	x.Close()
	stop()
	traffic := readLog(t, log)
	findings, encrypted, err := securetest.Check(traffic, []byte(rootText), []byte("00112233445566778899aabbccddeeff"), random.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Errorf("leak: %v", f)
	}
	// Create twice, Load twice, Unseal, Sign, GetRandom twice.
	if encrypted < 8 {
		t.Errorf("only %d encrypted parameters in %d exchanges", encrypted, len(traffic))
	}
}

func readLog(t *testing.T, path string) []securetest.Exchange {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	traffic, err := securetest.ParseTranscript(f)
	if err != nil || len(traffic) == 0 {
		t.Fatalf("%d exchanges (%v)", len(traffic), err)
	}
	return traffic
}

// TestCheckFindsLeaks seals and opens with weak sessions, by hand, and asserts
// that the check which the other tests rest on reports the secret in each.
func TestCheckFindsLeaks(t *testing.T) {
	in, out := tpm2.AESEncryption(128, tpm2.EncryptIn), tpm2.AESEncryption(128, tpm2.EncryptOut)
	for _, c := range []struct {
		name           string
		create, unseal tpm2.Session
	}{
		{"password", tpm2.PasswordAuth(nil), tpm2.PasswordAuth(nil)},
		{"no encryption", tpm2.HMAC(tpm2.TPMAlgSHA256, 16), tpm2.HMAC(tpm2.TPMAlgSHA256, 16)},
		{"encryption without salt", tpm2.HMAC(tpm2.TPMAlgSHA256, 16, in), tpm2.HMAC(tpm2.TPMAlgSHA256, 16, out)},
		{"AES-256 and SHA-384", tpm2.HMAC(tpm2.TPMAlgSHA384, 24, tpm2.AESEncryption(256, tpm2.EncryptIn)), tpm2.HMAC(tpm2.TPMAlgSHA384, 24, tpm2.AESEncryption(256, tpm2.EncryptOut))},
		{"the wrong direction", tpm2.HMAC(tpm2.TPMAlgSHA256, 16, out), tpm2.PasswordAuth(nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, _ := startTPM(t, t.TempDir())
			p := proxy(t, addr, securetest.Mangle{})
			raw(t, p.Addr(), func(r transport.TPM) { weakLife(t, r, c.create, c.unseal) })
			findings, _, err := securetest.Check(p.Exchanges(), []byte(rootText))
			if err != nil {
				t.Fatal(err)
			}
			found := make(map[tpm2.TPMCC]bool)
			for _, f := range findings {
				found[tpm2.TPMCC(f.Command)] = true
			}
			for _, cc := range []tpm2.TPMCC{tpm2.TPMCCCreate, tpm2.TPMCCUnseal} {
				if !found[cc] {
					t.Errorf("the leak in command %#x was not found", uint32(cc))
				}
			}
		})
	}
}

// weakLife seals and unseals the secret with the given sessions.
func weakLife(t *testing.T, r transport.TPM, create, unseal tpm2.Session) {
	t.Helper()
	srk, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(r)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: create},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte(rootText)}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
		}),
	}.Execute(r)
	if err != nil {
		t.Fatal(err)
	}
	object, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    blob.OutPrivate, InPublic: blob.OutPublic,
	}.Execute(r)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: unseal}}.Execute(r)
	if err != nil || string(opened.OutData.Buffer) != rootText {
		t.Fatalf("the weak life failed: %v", err)
	}
	mem.Zero(opened.OutData.Buffer)
}
