package fleet_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"vigil/fleet"
)

func pemKey(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// badCommand is a token with the reason for which it must be refused.
type badCommand struct {
	name   string
	token  []byte
	reason fleet.Reason
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func sign(t *testing.T, a *fleet.Authority, c fleet.Command) []byte {
	t.Helper()
	token, err := a.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(token)
}

// badCommands are one or more of each kind that needs no key of ours, or the real key on a wrong order. used is a
// command that was carried out.
func badCommands(t *testing.T, a, stranger *fleet.Authority, used fleet.Command) []badCommand {
	t.Helper()
	with := func(change func(*fleet.Command)) fleet.Command {
		c := used
		c.ID = strings.Repeat("ab", 16)
		change(&c)
		return c
	}
	good := string(sign(t, a, with(func(*fleet.Command) {})))
	parts := strings.Split(good, ".")
	flip := []byte(good)
	flip[len(parts[0])+10] ^= 1
	if !json.Valid(used.Args) {
		t.Fatal("args of the used command are no JSON")
	}
	now := used.IssuedAt
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(a.Public())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := hmac.Sign([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	confused, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []badCommand{
		{"plain JSON", []byte(`{"v":1,"cmd":"status"}`), fleet.ReasonUnsigned},
		{"alg none", []byte(b64(`{"alg":"none"}`) + "." + parts[1] + "."), fleet.ReasonUnsigned},
		{"alg none with a signature", []byte(b64(`{"alg":"none","kid":"x","typ":"vigil-command"}`) + "." + parts[1] + "." + parts[2]), fleet.ReasonUnsigned},
		{"public key as HMAC secret", []byte(confused), fleet.ReasonAlgorithm},
		{"ES256", []byte(b64(`{"alg":"ES256","kid":"x","typ":"vigil-command"}`) + "." + parts[1] + "." + parts[2]), fleet.ReasonAlgorithm},
		{"critical extension", []byte(b64(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"vigil-command","crit":["b64"],"b64":false}`, fleet.KeyID(a.Public()))) + "." + parts[1] + "." + parts[2]), fleet.ReasonHeader},
		{"another type", []byte(b64(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"JWT"}`, fleet.KeyID(a.Public()))) + "." + parts[1] + "." + parts[2]), fleet.ReasonHeader},
		{"unknown key", sign(t, stranger, used), fleet.ReasonUnknownKey},
		{"changed payload", flip, fleet.ReasonSignature},
		{"changed signature", []byte(parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))), fleet.ReasonSignature},
		{"noise", []byte("\x00\xff noise"), fleet.ReasonMalformed},
		{"four parts", []byte(good + ".AAAA"), fleet.ReasonMalformed},
		{"too large", make([]byte, fleet.MaxCommandBytes+1), fleet.ReasonTooLarge},
		{"other device", sign(t, a, with(func(c *fleet.Command) { c.Device = "gate-8" })), fleet.ReasonForeign},
		{"other tenant", sign(t, a, with(func(c *fleet.Command) { c.Tenant = "other" })), fleet.ReasonForeign},
		{"expired", sign(t, a, with(func(c *fleet.Command) {
			c.IssuedAt, c.Expires = now.Add(-2*time.Hour), now.Add(-time.Hour)
		})), fleet.ReasonExpired},
		{"from the future", sign(t, a, with(func(c *fleet.Command) {
			c.IssuedAt, c.Expires = now.Add(time.Hour), now.Add(2*time.Hour)
		})), fleet.ReasonFuture},
		{"lives too long", unchecked(t, a, with(func(c *fleet.Command) { c.Expires = c.IssuedAt.Add(fleet.MaxCommandLifetime + time.Second) })), fleet.ReasonLifetime},
		{"unknown command", unchecked(t, a, with(func(c *fleet.Command) { c.Name = "shell" })), fleet.ReasonUnknown},
		{"used id, other content", sign(t, a, with(func(c *fleet.Command) {
			c.ID, c.Args = used.ID, json.RawMessage(`{"subject":"ffff0000"}`)
		})), fleet.ReasonReplayed},
	}
}

// unchecked signs a command that Authority.Sign refuses, with the authority's key.
func unchecked(t *testing.T, a *fleet.Authority, c fleet.Command) []byte {
	t.Helper()
	payload := fmt.Sprintf(`{"v":1,"id":%q,"tenant":%q,"device":%q,"cmd":%q,"args":%s,"iat":%d,"exp":%d}`,
		c.ID, c.Tenant, c.Device, c.Name, c.Args, c.IssuedAt.Unix(), c.Expires.Unix())
	token, err := a.SignUnchecked([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(token)
}
