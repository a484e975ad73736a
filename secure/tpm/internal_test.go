package tpm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"
)

// silent records what would have been sent and answers nothing.
type silent struct{ sent [][]byte }

func (s *silent) Send(command []byte) ([]byte, error) {
	s.sent = append(s.sent, command)
	return nil, io.EOF
}

// commandOf returns the bytes of a command as go-tpm sends it.
func commandOf(t *testing.T, execute func(transport.TPM) error) []byte {
	t.Helper()
	var s silent
	execute(&s)
	if len(s.sent) == 0 {
		t.Fatal("nothing was sent")
	}
	return s.sent[0]
}

var someName = tpm2.TPM2BName{Buffer: []byte{0, 11, 1, 2, 3}}

// fixed is a session that needs no TPM.
type fixed struct {
	tpm2.Session
	handle     tpm2.TPMHandle
	attributes tpm2.TPMASession
}

func (f fixed) Init(transport.TPM) error { return nil }
func (f fixed) NewNonceCaller() error    { return nil }
func (f fixed) NonceTPM() tpm2.TPM2BNonce {
	return tpm2.TPM2BNonce{}
}
func (f fixed) IsEncryption() bool     { return f.attributes.Encrypt }
func (f fixed) IsDecryption() bool     { return f.attributes.Decrypt }
func (f fixed) Encrypt([]byte) error   { return nil }
func (f fixed) Handle() tpm2.TPMHandle { return f.handle }
func (f fixed) Authorize(tpm2.TPMCC, []byte, []byte, []tpm2.TPM2BName, int) (*tpm2.TPMSAuthCommand, error) {
	return &tpm2.TPMSAuthCommand{Handle: f.handle, Attributes: f.attributes}, nil
}

func TestGuard(t *testing.T) {
	const session = tpm2.TPMHandle(0x02000000)
	in, out := fixed{handle: session, attributes: tpm2.TPMASession{Decrypt: true}}, fixed{handle: session, attributes: tpm2.TPMASession{Encrypt: true}}
	plain, password := fixed{handle: session}, tpm2.PasswordAuth(nil)
	fakePassword := fixed{handle: tpm2.TPMRSPW, attributes: tpm2.TPMASession{Decrypt: true, Encrypt: true}}
	create := func(s ...tpm2.Session) []byte {
		return commandOf(t, func(x transport.TPM) error {
			_, err := tpm2.Create{
				ParentHandle: tpm2.AuthHandle{Handle: srkHandle, Name: someName, Auth: s[0]},
				InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{}},
				InPublic:     tpm2.New2B(signingTemplate()),
			}.Execute(x, s[1:]...)
			return err
		})
	}
	unseal := func(s tpm2.Session) []byte {
		return commandOf(t, func(x transport.TPM) error {
			_, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: 0x80000000, Name: someName, Auth: s}}.Execute(x)
			return err
		})
	}
	random := func(s ...tpm2.Session) []byte {
		return commandOf(t, func(x transport.TPM) error {
			_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(x, s...)
			return err
		})
	}
	start := func(salt tpm2.TPMHandle, sym tpm2.TPMTSymDef) []byte {
		return commandOf(t, func(x transport.TPM) error {
			_, err := tpm2.StartAuthSession{TPMKey: salt, Bind: tpm2.TPMRHNull, Symmetric: sym, AuthHash: tpm2.TPMAlgSHA256, SessionType: tpm2.TPMSEHMAC}.Execute(x)
			return err
		})
	}
	ping := commandOf(t, func(x transport.TPM) error { _, err := tpm2.ReadClock{}.Execute(x); return err })
	for _, c := range []struct {
		name    string
		command []byte
		refused bool
	}{
		{"create, encrypted", create(in), false},
		{"create, encrypted by the second session", create(password, in), false},
		{"create, answer encrypted only", create(out), true},
		{"create, plain session", create(plain), true},
		{"create, password", create(password), true},
		{"create, password that claims to encrypt", create(fakePassword), true},
		{"unseal, encrypted", unseal(out), false},
		{"unseal, question encrypted only", unseal(in), true},
		{"unseal, password", unseal(password), true},
		{"random, encrypted", random(out), false},
		{"random, plain", random(), true},
		{"session, salted and AES", start(srkHandle, aes128CFB()), false},
		{"session without salt", start(tpm2.TPMRHNull, aes128CFB()), true},
		{"session without cipher", start(srkHandle, tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}), true},
		{"no secret", ping, false},
		{"cut off", create(in)[:20], true},
		{"no header", ping[:9], true},
	} {
		err := guard(c.command)
		if (err != nil) != c.refused {
			t.Errorf("%s: got %v", c.name, err)
		}
		if err != nil && len(c.command) >= headerBytes && !errors.Is(err, ErrUnprotected) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestGuardStandsInFront asserts that the guard is in the way of every command,
// and that a refused one does not break the connection.
func TestGuardStandsInFront(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	x := &TPM{link: &socketLink{conn: client}, timeout: time.Second}
	defer x.Close()
	err := x.do("open", func(s transport.TPM) error {
		_, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: 0x80000000, Name: someName, Auth: tpm2.PasswordAuth(nil)}}.Execute(s)
		return err
	})
	if !errors.Is(err, ErrUnprotected) || x.broken != nil {
		t.Errorf("got %v, broken %v", err, x.broken)
	}
}

// device makes a deviceLink on one end of a socket that keeps message
// boundaries, as the kernel's device does, and hands the other end to the peer.
func device(t *testing.T, peer func(fd int)) *deviceLink {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[1], false); err != nil {
		t.Fatal(err)
	}
	l := &deviceLink{fd: fds[0]}
	done := make(chan struct{})
	go func() {
		defer close(done)
		peer(fds[1])
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		unix.Close(fds[1])
	})
	return l
}

func TestDeviceLink(t *testing.T) {
	ok := []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8}
	for _, c := range []struct {
		name    string
		answer  []byte // nil: none
		timeout time.Duration
		want    error
		words   string
	}{
		{name: "answer", answer: ok, timeout: 10 * time.Second},
		{name: "silence", timeout: 30 * time.Millisecond, want: os.ErrDeadlineExceeded},
		{name: "short", answer: ok[:9], timeout: 10 * time.Second, words: "does not match its header"},
		{name: "cut", answer: ok[:11], timeout: 10 * time.Second, words: "does not match its header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := device(t, func(fd int) {
				buf := make([]byte, 64)
				if n, err := unix.Read(fd, buf); err == nil && n > 0 && c.answer != nil {
					unix.Write(fd, c.answer)
				}
			})
			got, err := l.exchange([]byte{1, 2, 3}, c.timeout)
			switch {
			case c.want != nil:
				if !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
			case c.words != "":
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Errorf("got %v", err)
				}
			case err != nil || !bytes.Equal(got, c.answer):
				t.Errorf("got %x (%v)", got, err)
			}
		})
	}
}

func TestLetters(t *testing.T) {
	for _, c := range []struct {
		in   []uint32
		want string
	}{
		{[]uint32{0x49424D00}, "IBM"},
		{[]uint32{0x53572020, 0x2054504D}, "SW   TPM"},
		{[]uint32{0, 0}, ""},
		{[]uint32{0x1b5b316d}, "[1m"},
	} {
		if got := letters(c.in...); got != c.want {
			t.Errorf("%x: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestIsSoftware(t *testing.T) {
	for _, c := range []struct {
		info Info
		want bool
	}{
		{Info{Transport: "socket", Manufacturer: "IFX"}, true},
		{Info{Transport: "device", Manufacturer: "IBM", Vendor: "SW   TPM"}, true},
		{Info{Transport: "device", Manufacturer: "IFX", Vendor: "SLB9672"}, false},
		{Info{Transport: "device", Manufacturer: "INTC", Vendor: "Intel"}, false},
	} {
		if got := isSoftware(c.info); got != c.want {
			t.Errorf("%+v: got %v", c.info, got)
		}
	}
}

// FuzzPublic feeds stored public areas to the parsers. They must not panic, and
// what they accept must be what its name says.
func FuzzPublic(f *testing.F) {
	f.Add(tpm2.Marshal(tpm2.ECCSRKTemplate))
	f.Add(tpm2.Marshal(tpm2.RSASRKTemplate))
	f.Add(tpm2.Marshal(signingTemplate()))
	f.Add(tpm2.Marshal(sealedTemplate(make([]byte, 32))))
	f.Add([]byte{})
	f.Add([]byte{0, 0x23, 0, 0x0b})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if public, err := unmarshalPublic(raw); err == nil && !bytes.Equal(tpm2.Marshal(*public), raw) {
			t.Error("accepted a public area that encodes otherwise")
		} else if err != nil && !errors.Is(err, ErrBlob) {
			t.Errorf("error without ErrBlob: %v", err)
		}
		if _, err := parsePublic(raw); err != nil && !errors.Is(err, ErrBlob) {
			t.Errorf("error without ErrBlob: %v", err)
		}
		if _, err := SigningPublic(Blob{Public: raw}); err != nil && !errors.Is(err, ErrBlob) {
			t.Errorf("error without ErrBlob: %v", err)
		}
	})
}

// FuzzGuard must never panic, and never let a guarded command pass that has no
// session area.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{0x80, 2, 0, 0, 0, 10, 0, 0, 1, 0x5e})
	f.Add([]byte{0x80, 2, 0, 0, 0, 27, 0, 0, 1, 0x5e, 0x80, 0, 0, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 0, 0x40, 0, 0})
	f.Add([]byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8})
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x76})
	f.Fuzz(func(t *testing.T, command []byte) {
		err := guard(command)
		if err == nil && len(command) > 10 && command[1] == 1 {
			if _, secret := guarded(tpm2.TPMCC(uint32(command[6])<<24 | uint32(command[7])<<16 | uint32(command[8])<<8 | uint32(command[9]))); secret {
				t.Error("let a secret pass without sessions")
			}
		}
	})
}
