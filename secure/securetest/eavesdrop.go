package securetest

import (
	"crypto"
	"crypto/aes"
	"crypto/hmac"
	_ "crypto/sha1"   // session hashes
	_ "crypto/sha256" // session hashes
	_ "crypto/sha512" // session hashes
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// View is what an eavesdropper reads at one place of the traffic.
type View struct {
	Exchange int    // index
	Command  uint32 // command code
	Where    string // what was read and how
	Bytes    []byte
}

// wire is one session as the eavesdropper tracks it.
type wire struct {
	hash     crypto.Hash
	keyBytes int    // 0: no AES-CFB
	nonceTPM []byte // the last one
	keys     map[string][]byte
}

// listener replays traffic and keeps the state of every session.
type listener struct {
	sessions map[uint32]*wire
	views    []View
	secured  int // parameters that were encrypted
}

// layout gives the number of handles in front of the authorisation area, in the
// command and in the response (TPM 2.0 part 3).
var layout = map[tpm2.TPMCC][2]int{
	tpm2.TPMCCCreatePrimary:             {1, 1},
	tpm2.TPMCCCreate:                    {1, 0},
	tpm2.TPMCCCreateLoaded:              {1, 1},
	tpm2.TPMCCLoad:                      {1, 1},
	tpm2.TPMCCUnseal:                    {1, 0},
	tpm2.TPMCCSign:                      {1, 0},
	tpm2.TPMCCReadPublic:                {1, 0},
	tpm2.TPMCCEvictControl:              {2, 0},
	tpm2.TPMCCGetRandom:                 {0, 0},
	tpm2.TPMCCPCRRead:                   {0, 0},
	tpm2.TPMCCPCRExtend:                 {1, 0},
	tpm2.TPMCCPolicyPCR:                 {1, 0},
	tpm2.TPMCCStartAuthSession:          {2, 1},
	tpm2.TPMCCGetCapability:             {0, 0},
	tpm2.TPMCCReadClock:                 {0, 0},
	tpm2.TPMCCClear:                     {1, 0},
	tpm2.TPMCCHierarchyChanegAuth:       {1, 0},
	tpm2.TPMCCDictionaryAttackLockReset: {1, 0},
	tpm2.TPMCCNVDefineSpace:             {1, 0},
	tpm2.TPMCCNVUndefineSpace:           {2, 0},
	tpm2.TPMCCNVIncrement:               {2, 0},
	tpm2.TPMCCNVRead:                    {2, 0},
	tpm2.TPMCCNVWrite:                   {2, 0},
	tpm2.TPMCCCertify:                   {2, 0},
	tpm2.TPMCCQuote:                     {1, 0},
	tpm2.TPMCCActivateCredential:        {2, 0},
}

// Eavesdrop returns everything that somebody on the bus can read who knows no
// secret: all bytes as they are, and all encrypted parameters under the keys of
// a session without salt and binding. encrypted counts the parameters that were
// encrypted. It fails on traffic it cannot judge: an unknown command with
// sessions, a cipher other than AES-CFB.
func Eavesdrop(traffic []Exchange) (views []View, encrypted int, err error) {
	l := &listener{sessions: make(map[uint32]*wire)}
	for i, x := range traffic {
		if len(x.Command) < 10 {
			return nil, 0, fmt.Errorf("cannot judge exchange %d: command of %d bytes", i, len(x.Command))
		}
		cc := binary.BigEndian.Uint32(x.Command[6:])
		l.see(i, cc, "clear command", x.Command)
		l.see(i, cc, "clear response", x.Response)
		if err := l.exchange(i, cc, x); err != nil {
			return nil, 0, fmt.Errorf("cannot judge exchange %d, command %#x: %w", i, cc, err)
		}
	}
	return l.views, l.secured, nil
}

func (l *listener) see(i int, cc uint32, where string, b []byte) {
	if len(b) > 0 {
		l.views = append(l.views, View{Exchange: i, Command: cc, Where: where, Bytes: b})
	}
}

// succeeded says whether the TPM carried the command out.
func succeeded(rsp []byte) bool {
	return len(rsp) >= 10 && binary.BigEndian.Uint32(rsp[6:]) == 0
}

func (l *listener) exchange(i int, cc uint32, x Exchange) error {
	if tpm2.TPMCC(cc) == tpm2.TPMCCStartAuthSession && succeeded(x.Response) {
		return l.open(x)
	}
	if binary.BigEndian.Uint16(x.Command) != uint16(tpm2.TPMSTSessions) {
		return nil
	}
	handles, known := layout[tpm2.TPMCC(cc)]
	if !known {
		return errors.New("unknown command with sessions")
	}
	c := &cursor{b: x.Command[10:]}
	c.take(4 * handles[0])
	auths := c.auths(int(c.u32()))
	if c.bad {
		return errors.New("malformed authorisations")
	}
	if err := l.decrypt(i, cc, "command", attributeDecrypt, auths, c.b, false); err != nil {
		return err
	}
	if !succeeded(x.Response) {
		return nil
	}
	r := &cursor{b: x.Response[10:]}
	r.take(4 * handles[1])
	parameters := r.take(int(r.u32()))
	answers := r.answers(len(auths))
	if r.bad {
		return errors.New("malformed response")
	}
	return l.answer(i, cc, auths, answers, parameters)
}

// answer takes over the TPM's new nonces and reads the encrypted response.
func (l *listener) answer(i int, cc uint32, auths, answers []auth, parameters []byte) error {
	for n := range auths {
		if s := l.sessions[auths[n].handle]; s != nil {
			s.nonceTPM = answers[n].nonce
		}
	}
	return l.decrypt(i, cc, "response", attributeEncrypt, auths, parameters, true)
}

// open starts to track a session (TPM 2.0 part 3, TPM2_StartAuthSession).
func (l *listener) open(x Exchange) error {
	c := &cursor{b: x.Command[10:]}
	c.take(8)
	nonceCaller := c.sized()
	c.sized() // salt
	c.take(1) // session type
	s := &wire{}
	if alg := tpm2.TPMAlgID(c.u16()); alg == tpm2.TPMAlgAES {
		s.keyBytes = int(c.u16()) / 8
		if tpm2.TPMAlgID(c.u16()) != tpm2.TPMAlgCFB {
			return errors.New("cipher mode is not CFB")
		}
	} else if alg != tpm2.TPMAlgNull {
		return fmt.Errorf("session cipher %#x", uint16(alg))
	}
	hash, err := tpm2.TPMIAlgHash(c.u16()).Hash()
	if err != nil {
		return err
	}
	r := &cursor{b: x.Response[10:]}
	handle := r.u32()
	s.hash, s.nonceTPM = hash, r.sized()
	if c.bad || r.bad {
		return errors.New("malformed session start")
	}
	s.keys = map[string][]byte{
		"the empty session key":               {},
		"the session key of an empty salt":    kdfa(hash, nil, "ATH", s.nonceTPM, nonceCaller, hash.Size()),
		"the all-zero session key":            make([]byte, hash.Size()),
		"the session key of an all-zero salt": kdfa(hash, make([]byte, 32), "ATH", s.nonceTPM, nonceCaller, hash.Size()),
	}
	l.sessions[handle] = s
	return nil
}

// decrypt tries the keys of nobody's secret on the first parameter.
func (l *listener) decrypt(i int, cc uint32, what string, attribute byte, auths []auth, parameters []byte, fromTPM bool) error {
	for _, a := range auths {
		if a.attributes&attribute == 0 || tpm2.TPMHandle(a.handle) == tpm2.TPMRSPW {
			continue
		}
		s := l.sessions[a.handle]
		if s == nil || s.keyBytes == 0 {
			return fmt.Errorf("encrypted %s of an unknown session %#x", what, a.handle)
		}
		c := &cursor{b: parameters}
		secret := c.sized()
		if c.bad {
			return fmt.Errorf("malformed encrypted %s", what)
		}
		l.secured++
		newer, older := a.nonce, s.nonceTPM
		if fromTPM {
			newer, older = s.nonceTPM, a.nonce
		}
		for name, key := range s.keys {
			plain, err := decryptCFB(s, key, newer, older, secret)
			if err != nil {
				return err
			}
			l.see(i, cc, "encrypted "+what+" under "+name, plain)
		}
	}
	return nil
}

// decryptCFB undoes parameter encryption (TPM 2.0 part 1, section 21.3).
func decryptCFB(s *wire, sessionKey, newer, older, secret []byte) ([]byte, error) {
	keyIV := kdfa(s.hash, sessionKey, "CFB", newer, older, s.keyBytes+aes.BlockSize)
	block, err := aes.NewCipher(keyIV[:s.keyBytes])
	if err != nil {
		return nil, err
	}
	plain, pad := make([]byte, 0, len(secret)), make([]byte, aes.BlockSize)
	for previous := keyIV[s.keyBytes:]; len(secret) > 0; {
		n := min(aes.BlockSize, len(secret))
		block.Encrypt(pad, previous)
		for i := range n {
			plain = append(plain, secret[i]^pad[i])
		}
		previous, secret = secret[:n], secret[n:]
	}
	return plain, nil
}

// kdfa is the counter mode KDF of TPM 2.0 part 1, section 11.4.10.2, written
// here anew so that the check does not rest on the library it checks.
func kdfa(h crypto.Hash, key []byte, label string, contextU, contextV []byte, sizeBytes int) []byte {
	var out []byte
	for counter := uint32(1); len(out) < sizeBytes; counter++ {
		mac := hmac.New(h.New, key)
		mac.Write(binary.BigEndian.AppendUint32(nil, counter))
		mac.Write(append([]byte(label), 0))
		mac.Write(contextU)
		mac.Write(contextV)
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(sizeBytes*8)))
		out = mac.Sum(out)
	}
	return out[:sizeBytes]
}
