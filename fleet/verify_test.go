package fleet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixed is an authority whose key is the same in each run, so that fuzz seeds stay valid.
func fixed(t testing.TB) *Authority {
	a, err := NewAuthority(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newVerifier(t testing.TB, now time.Time, floor time.Time) *verifier {
	keys, err := commandKeys([]ed25519.PublicKey{fixed(t).Public()})
	if err != nil {
		t.Fatal(err)
	}
	v := &verifier{topics: Topics{"acme", "gate-7"}, keys: keys, now: func() time.Time { return now }}
	v.floor.raise(floor)
	return v
}

func order(change func(*Command)) Command {
	c := Command{
		ID: strings.Repeat("0f", 16), Tenant: "acme", Device: "gate-7", Name: CommandSubjectDelete,
		Args: json.RawMessage(`{"subject":"s-1"}`), IssuedAt: noon, Expires: noon.Add(time.Hour),
	}
	if change != nil {
		change(&c)
	}
	return c
}

func token(t testing.TB, c Command) []byte {
	s, err := fixed(t).Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(s)
}

func TestVerifyGood(t *testing.T) {
	want := order(nil)
	got, reason := newVerifier(t, noon, time.Time{}).verify(token(t, want))
	if reason != "" || got.Digest() != want.Digest() || got.ID != want.ID || !got.Expires.Equal(want.Expires) {
		t.Fatalf("verify = %+v, %q", got, reason)
	}
	if subject, err := got.Subject(); err != nil || subject != "s-1" {
		t.Errorf("Subject = %q, %v", subject, err)
	}
	if _, err := order(func(c *Command) { c.Name = CommandStatus }).Subject(); err == nil {
		t.Error("a status has a subject")
	}
}

func TestVerifyClock(t *testing.T) {
	for name, c := range map[string]struct {
		now, floor time.Time
		change     func(*Command)
		want       Reason
	}{
		"in time":                     {now: noon.Add(30 * time.Minute)},
		"last moment with leeway":     {now: noon.Add(time.Hour + ClockLeeway)},
		"just expired":                {now: noon.Add(time.Hour + ClockLeeway + time.Second), want: ReasonExpired},
		"our clock is a little late":  {now: noon.Add(-ClockLeeway)},
		"our clock is too late":       {now: noon.Add(-ClockLeeway - time.Second), want: ReasonFuture},
		"longest life":                {now: noon, change: func(c *Command) { c.Expires = noon.Add(MaxCommandLifetime) }},
		"clock of 1970":               {now: time.Unix(0, 0), floor: noon, want: ReasonClock},
		"clock before the floor":      {now: noon, floor: noon.Add(2 * time.Hour), want: ReasonClock},
		"floor within the leeway":     {now: noon, floor: noon.Add(ClockLeeway)},
		"floor makes an old one late": {now: noon.Add(-time.Hour), floor: noon, want: ReasonClock},
	} {
		t.Run(name, func(t *testing.T) {
			if _, got := newVerifier(t, c.now, c.floor).verify(token(t, order(c.change))); got != c.want {
				t.Errorf("refused as %q, want %q", got, c.want)
			}
		})
	}
}

// A clock that is set back after commands were accepted cannot make an expired one fresh again; a clock that ran ahead
// for a while does not lock the device out.
func TestTimeFloor(t *testing.T) {
	v := newVerifier(t, noon, time.Time{})
	old := token(t, order(nil))
	later := token(t, order(func(c *Command) { c.IssuedAt, c.Expires = noon.Add(3*time.Hour), noon.Add(4*time.Hour) }))
	v.now = func() time.Time { return noon.AddDate(70, 0, 0) }
	if _, got := v.verify(later); got != ReasonExpired {
		t.Errorf("far ahead: %q", got)
	}
	v.now = func() time.Time { return noon.Add(3 * time.Hour) }
	if _, got := v.verify(later); got != "" {
		t.Errorf("clock is right again: %q", got)
	}
	if floor := v.floor.get(); !floor.Equal(noon.Add(3 * time.Hour)) {
		t.Errorf("floor is %v", floor)
	}
	v.now = func() time.Time { return noon.Add(30 * time.Minute) }
	if _, got := v.verify(old); got != ReasonClock {
		t.Errorf("set back: %q", got)
	}
}

func TestVerifyClaims(t *testing.T) {
	good := `{"v":1,"id":"0123456789abcdef","tenant":"acme","device":"gate-7","cmd":"status","args":{},"iat":%d,"exp":%d}`
	good = fmt.Sprintf(good, noon.Unix(), noon.Unix()+60)
	for name, c := range map[string]struct {
		from, to string
		want     Reason
	}{
		"as it is":             {"", "", ""},
		"version 2":            {`"v":1`, `"v":2`, ReasonMalformed},
		"version as text":      {`"v":1`, `"v":"1"`, ReasonMalformed},
		"unknown member":       {`"v":1`, `"v":1,"x":1`, ReasonMalformed},
		"member twice":         {`"v":1`, `"v":1,"v":1`, ReasonMalformed},
		"other case":           {`"cmd"`, `"CMD"`, ReasonMalformed},
		"missing member":       {`"args":{},`, ``, ReasonMalformed},
		"short id":             {`0123456789abcdef`, `0123`, ReasonMalformed},
		"long id":              {`0123456789abcdef`, strings.Repeat("0", 65), ReasonMalformed},
		"upper case id":        {`0123456789abcdef`, `0123456789ABCDEF`, ReasonMalformed},
		"null id":              {`"0123456789abcdef"`, `null`, ReasonMalformed},
		"wildcard device":      {`gate-7`, `#`, ReasonForeign},
		"device in other case": {`gate-7`, `GATE-7`, ReasonForeign},
		"fraction of time":     {`"exp":`, `"exp":0.5,"x":`, ReasonMalformed},
		"exponent":             {fmt.Sprint(noon.Unix() + 60), `1e10`, ReasonMalformed},
		"negative time":        {fmt.Sprint(`"iat":`, noon.Unix()), `"iat":-5`, ReasonMalformed},
		"time beyond 9999":     {fmt.Sprint(noon.Unix() + 60), `999999999999`, ReasonMalformed},
		"time overflow":        {fmt.Sprint(noon.Unix() + 60), `99999999999999999999`, ReasonMalformed},
		"exp before iat":       {fmt.Sprint(noon.Unix() + 60), fmt.Sprint(noon.Unix()), ReasonMalformed},
		"args for status":      {`"args":{}`, `"args":{"x":1}`, ReasonMalformed},
		"args null":            {`"args":{}`, `"args":null`, ReasonMalformed},
		"args a list":          {`"args":{}`, `"args":[]`, ReasonMalformed},
		"delete without id":    {`"status"`, `"subject.delete"`, ReasonMalformed},
		"unknown command":      {`"status"`, `"status "`, ReasonUnknown},
		"data behind":          {`}`, `} {}`, ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			payload := good
			if c.from != "" {
				if payload = strings.Replace(good, c.from, c.to, 1); payload == good {
					t.Fatalf("%q is not in the claims", c.from)
				}
			}
			signed, err := fixed(t).SignUnchecked([]byte(payload))
			if err != nil {
				t.Fatal(err)
			}
			if _, got := newVerifier(t, noon, time.Time{}).verify([]byte(signed)); got != c.want {
				t.Errorf("refused as %q, want %q", got, c.want)
			}
		})
	}
}

// Whatever is accepted carries a good signature over the claims that are returned.
func FuzzVerify(f *testing.F) {
	real := token(f, order(nil))
	f.Add(real)
	f.Add(token(f, order(func(c *Command) { c.Device = "gate-8" })))
	f.Add(token(f, order(func(c *Command) { c.Name, c.Args = CommandStatus, json.RawMessage(`{}`) })))
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	f.Add(append(bytes.Clone(real), '.'))
	v := newVerifier(f, noon, time.Time{})
	pub := fixed(f).Public()
	f.Fuzz(func(t *testing.T, data []byte) {
		c, reason := v.verify(data)
		if reason != "" {
			return
		}
		parts := strings.Split(string(data), ".")
		sig, err := base64.RawURLEncoding.DecodeString(parts[2])
		if err != nil || !ed25519.Verify(pub, []byte(parts[0]+"."+parts[1]), sig) {
			t.Fatalf("accepted %q without a good signature", data)
		}
		if c.Tenant != "acme" || c.Device != "gate-7" {
			t.Fatalf("accepted a command for %s/%s", c.Tenant, c.Device)
		}
	})
}

// Claims need no signature to be parsed here, so that the fuzzer gets past it.
func FuzzParseClaims(f *testing.F) {
	payload, err := order(nil).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"v":1,"id":"0123456789abcdef","tenant":"a","device":"b","cmd":"status","args":{},"iat":1,"exp":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseClaims(data)
		if err != nil {
			return
		}
		again, err := c.encode()
		if err != nil {
			t.Fatalf("%q does not encode: %v", data, err)
		}
		if back, err := parseClaims(again); err != nil || back.Digest() != c.Digest() {
			t.Fatalf("%q does not survive: %v", data, err)
		}
	})
}

func TestAuthority(t *testing.T) {
	seed := bytes.Repeat([]byte{9}, ed25519.SeedSize)
	key := ed25519.NewKeyFromSeed(seed)
	a, err := NewAuthority(key)
	if err != nil {
		t.Fatal(err)
	}
	clear(key) // the authority has its own copy
	if _, err := a.Sign(order(nil)); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, a); got != "fleet key "+KeyID(a.Public()) {
			t.Errorf("%s prints %q", format, got)
		}
	}
	for name, c := range map[string]Command{
		"id":       order(func(c *Command) { c.ID = "x" }),
		"device":   order(func(c *Command) { c.Device = "+" }),
		"name":     order(func(c *Command) { c.Name = "shell" }),
		"args":     order(func(c *Command) { c.Args = json.RawMessage(`{"subject":7}`) }),
		"no JSON":  order(func(c *Command) { c.Args = json.RawMessage(`{`) }),
		"lifetime": order(func(c *Command) { c.Expires = c.IssuedAt.Add(MaxCommandLifetime + time.Second) }),
		"times":    order(func(c *Command) { c.Expires = c.IssuedAt }),
	} {
		if _, err := a.Sign(c); err == nil {
			t.Errorf("a command with a bad %s is signed", name)
		}
	}
	a.Close()
	if _, err := a.Sign(order(nil)); err == nil {
		t.Error("a closed authority signs")
	}
	if _, err := NewAuthority(key[:10]); err == nil {
		t.Error("a short key is taken")
	}
}

// An audit that does not take a refusal is told with the next; noise of one kind hides no other.
func TestRefusals(t *testing.T) {
	var told []Refusal
	fail := true
	r := newRefusals(func(_ context.Context, f Refusal) error {
		if fail {
			fail = false
			return errors.New("disk is full")
		}
		told = append(told, f)
		return nil
	}, slog.New(slog.DiscardHandler))
	for range 100 {
		r.refuse(t.Context(), ReasonUnsigned, "")
	}
	if len(told) != auditBurst-1 || told[0].Suppressed != 1 {
		t.Errorf("told %v", told)
	}
	if !r.refuse(t.Context(), ReasonExpired, "id-1") || told[len(told)-1].CommandID != "id-1" {
		t.Error("another reason is hidden behind the noise")
	}
	counts, suppressed, failed := r.snapshot()
	if counts[ReasonUnsigned] != 100 || suppressed != 100-auditBurst || failed != 1 {
		t.Errorf("counts %v, suppressed %d, failed %d", counts, suppressed, failed)
	}
}
