package fleet

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// verifier decides whether bytes from the broker are a command for this device. It does no I/O.
type verifier struct {
	topics Topics
	keys   map[string]ed25519.PublicKey // by KeyID
	now    func() time.Time
	floor  timeFloor
}

// timeFloor is the latest time that is known to have passed: what the store remembered at start (Config.NotBefore), and
// the issue time of each accepted command, which a trusted clock signed. It never follows the device's own clock, so a
// clock that once ran ahead cannot lock the device out.
type timeFloor struct {
	mu sync.Mutex
	t  time.Time
}

func (f *timeFloor) get() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t
}

func (f *timeFloor) raise(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.After(f.t) {
		f.t = t
	}
}

// verify returns the command in token, or the reason to refuse it. The command's ID is set as soon as the signature was
// good, also with a refusal; before that nothing of the token is believed.
func (v *verifier) verify(token []byte) (Command, Reason) {
	if len(token) > MaxCommandBytes {
		return Command{}, ReasonTooLarge
	}
	payload, reason := v.open(string(token))
	if reason != "" {
		return Command{}, reason
	}
	c, err := parseClaims(payload)
	if err != nil {
		return Command{ID: c.ID}, ReasonMalformed
	}
	if c.Tenant != v.topics.tenant || c.Device != v.topics.device {
		return c, ReasonForeign
	}
	if reason := v.fresh(c); reason != "" {
		return c, reason
	}
	known, err := checkArgs(c.Name, c.Args)
	if !known {
		return c, ReasonUnknown
	}
	if err != nil {
		return c, ReasonMalformed
	}
	v.floor.raise(c.IssuedAt)
	return c, ""
}

// open checks shape, header and signature of a compact JWS and returns its payload.
func (v *verifier) open(token string) ([]byte, Reason) {
	parts := strings.Split(token, ".")
	if strings.HasPrefix(strings.TrimSpace(token), "{") || (len(parts) == 3 && parts[2] == "") {
		return nil, ReasonUnsigned
	}
	if len(parts) != 3 || !base64url(parts[0]) || !base64url(parts[1]) || !base64url(parts[2]) {
		return nil, ReasonMalformed
	}
	kid, reason := readHeader(parts[0])
	if reason != "" {
		return nil, reason
	}
	key, known := v.keys[kid]
	if !known {
		return nil, ReasonUnknownKey
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, ReasonMalformed
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return nil, ReasonSignature
	}
	return payload, ""
}

// headerAlg reads "alg" however the rest of the header looks; it only names the refusal.
func headerAlg(header []byte) string {
	var h struct {
		Alg string `json:"alg"`
	}
	_ = json.Unmarshal(header, &h) // an unreadable header has no alg
	return h.Alg
}

// readHeader accepts exactly the members alg, kid and typ; critical extensions, embedded keys and the like are refused.
func readHeader(segment string) (kid string, reason Reason) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return "", ReasonMalformed
	}
	obj, err := strictObject(raw, "alg", "kid", "typ")
	if alg := headerAlg(raw); alg == "none" {
		return "", ReasonUnsigned
	} else if alg != "" && alg != string(jose.EdDSA) {
		return "", ReasonAlgorithm
	}
	if err != nil {
		return "", ReasonHeader
	}
	if _, err := member[string](obj, "alg"); err != nil {
		return "", ReasonHeader
	}
	if typ, err := member[string](obj, "typ"); err != nil || typ != commandType {
		return "", ReasonHeader
	}
	kid, err = member[string](obj, "kid")
	if err != nil {
		return "", ReasonHeader
	}
	return kid, ""
}

// fresh compares the command's times with the clock. A clock that stands before the time floor is known to be wrong:
// then nothing can be called fresh, and every command is refused until the clock is set.
func (v *verifier) fresh(c Command) Reason {
	now := v.now()
	switch {
	case now.Before(v.floor.get().Add(-ClockLeeway)):
		return ReasonClock
	case c.Expires.Sub(c.IssuedAt) > MaxCommandLifetime:
		return ReasonLifetime
	case now.After(c.Expires.Add(ClockLeeway)):
		return ReasonExpired
	case c.IssuedAt.After(now.Add(ClockLeeway)):
		return ReasonFuture
	}
	return ""
}

func base64url(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// commandKeys indexes keys by KeyID and refuses what is no Ed25519 public key.
func commandKeys(keys []ed25519.PublicKey) (map[string]ed25519.PublicKey, error) {
	out := make(map[string]ed25519.PublicKey, len(keys))
	for i, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("cannot use command key %d: it has %d bytes, wanted an Ed25519 public key of %d", i, len(k), ed25519.PublicKeySize)
		}
		out[KeyID(k)] = append(ed25519.PublicKey(nil), k...)
	}
	return out, nil
}
