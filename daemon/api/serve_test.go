package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
)

// pki is a throw-away authority with certificates in a folder.
type pki struct {
	dir  string
	pool *x509.CertPool
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), pool: x509.NewCertPool()}
	p.ca, p.key = p.made(t, "authority", nil)
	p.pool.AddCert(p.ca)
	return p
}

// made makes a certificate NAME.pem with its key NAME.key; change may alter what is signed.
func (p *pki) made(t testing.TB, name string, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.n++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(p.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := p.ca, p.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = c, key
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(p.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

// client is the TLS of a client with a certificate, "" for none.
func (p *pki) client(t testing.TB, name string) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: p.pool, ServerName: "127.0.0.1"}
	if name != "" {
		cert, err := tls.LoadX509KeyPair(p.file(name+".pem"), p.file(name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

// served is a device with played models, served on a socket and on the network.
type served struct {
	*pki
	app    *core.Appliance
	server *Server
	socket string
	device *daemontest.Device
}

func serveFake(t testing.TB, b bounds, change func(*config.Config)) *served {
	t.Helper()
	p := newPKI(t)
	for _, name := range []string{"server", "desk", "stranger"} {
		p.made(t, name, nil)
	}
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("m", false))
	d.Config.Policy.MaxFailures = 0
	d.Config.API.TCP = config.TCP{
		Address: "127.0.0.1:0", Certificate: p.file("server.pem"), Key: p.file("server.key"), ClientCA: p.file("authority.pem"),
		Clients: []config.TCPClient{{Name: "desk", Scope: config.ScopeEnroller}},
	}
	if change != nil {
		change(&d.Config)
	}
	a := d.Open(t)
	s := &served{pki: p, app: a, socket: filepath.Join(d.Config.StateDir, "s"), device: d}
	var err error
	if s.server, err = serveAll(t.Context(), s.socket, a, quiet(), b); err != nil {
		t.Fatal(errors.Join(err, a.Close()))
	}
	t.Cleanup(func() {
		if err := errors.Join(s.server.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// dialers are the ways in: name to a function that opens a connection over which HTTP/1.1 may be spoken.
func (s *served) dialers(t testing.TB) map[string]func() net.Conn {
	return map[string]func() net.Conn{
		"socket": func() net.Conn { return connect(t, s.socket) },
		"TLS": func() net.Conn {
			c, err := tls.Dial("tcp", s.server.Addr().String(), s.client(t, "desk"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			return c
		},
	}
}

// http is a client that comes one of the ways, "socket" or "TLS" with the version of HTTP.
func (s *served) http(t testing.TB, way, cert string) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	switch way {
	case "socket 1":
		tr.Protocols.SetHTTP1(true)
	case "socket 2":
		tr.Protocols.SetUnencryptedHTTP2(true)
	case "TLS 1":
		tr.Protocols.SetHTTP1(true)
	case "TLS 2":
		tr.Protocols.SetHTTP2(true)
	}
	if strings.HasPrefix(way, "socket") {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, s.socket) }
	} else {
		tr.TLSClientConfig = s.client(t, cert)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func (s *served) url(way, path string) string {
	if strings.HasPrefix(way, "socket") {
		return "http://vigild" + path
	}
	return "https://" + s.server.Addr().String() + path
}

// reply is the head of an answer.
type reply struct {
	StatusCode, ProtoMajor int
	Status, Proto          string
	Header                 http.Header
}

// fetch sends a request and returns status, headers and body.
func (s *served) fetch(t testing.TB, way, cert, method, path, token string, body io.Reader) (reply, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url(way, path), body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.http(t, way, cert).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.ProtoMajor, resp.Status, resp.Proto, resp.Header}, data
}

var ways = []string{"socket 1", "socket 2", "TLS 1", "TLS 2"}

func TestBothVersionsBothWays(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	for _, way := range ways {
		resp, body := s.fetch(t, way, "desk", http.MethodGet, "/v1/health/live", "", nil)
		if want := int(way[len(way)-1] - '0'); resp.StatusCode != http.StatusOK || resp.ProtoMajor != want || string(body) != "{\"live\":true}\n" {
			t.Errorf("%s: %s %s %s", way, resp.Proto, resp.Status, body)
		}
	}
}

func TestTheNetworkAsksForACertificate(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	foreign := newPKI(t)
	foreign.made(t, "desk", nil)
	old := s.client(t, "desk")
	old.MaxVersion = tls.VersionTLS12
	theirs := foreign.client(t, "desk")
	theirs.RootCAs = s.pool
	for name, c := range map[string]*tls.Config{"no certificate": s.client(t, ""), "another authority's": theirs, "TLS 1.2": old} {
		tr := &http.Transport{TLSClientConfig: c}
		resp, err := (&http.Client{Transport: tr}).Get(s.url("TLS", "/v1/health/live"))
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s was let in: %s", name, resp.Status)
		}
		tr.CloseIdleConnections()
	}
}

func TestScopesOfTheNetwork(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	_, viewer, err := s.app.CreateToken(t.Context(), "v", config.ScopeViewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	op, operator, err := s.app.CreateToken(t.Context(), "o", config.ScopeOperator, 0)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(cert, token, path, want string) {
		t.Helper()
		resp, body := s.fetch(t, "TLS 2", cert, http.MethodGet, path, token, nil)
		var p Problem
		_ = json.Unmarshal(body, &p)
		if got := fmt.Sprint(resp.StatusCode, " ", p.Code); got != want {
			t.Errorf("%s with token %.10q gets %s, want %s: %s", cert, token, got, want, body)
		}
	}
	ask("desk", "", "/v1/subjects", "200 ")
	ask("desk", "", "/v1/tokens", "403 scope")
	ask("desk", viewer, "/v1/subjects", "403 scope") // the token takes the certificate's place
	ask("stranger", "", "/v1/status", "401 unauthenticated")
	ask("stranger", viewer, "/v1/status", "200 ")
	ask("stranger", viewer, "/v1/subjects", "403 scope")
	ask("stranger", operator, "/v1/tokens", "200 ")
	ask("desk", "vigil_wrong", "/v1/status", "401 unauthenticated")
	ask("stranger", "", "/v1/nothing", "401 unauthenticated") // who is nobody learns nothing
	if err := s.app.RevokeToken(t.Context(), op.ID); err != nil {
		t.Fatal(err)
	}
	ask("stranger", operator, "/v1/tokens", "401 unauthenticated")
}

// TestOtherSchemesAreRefused: whoever shows something must not be taken for somebody who shows nothing.
func TestOtherSchemesAreRefused(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	for _, text := range []string{"Basic dTpw", "Bearer", "Bearer ", "x"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("socket", "/v1/status"), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", text)
		resp, err := s.http(t, "socket 1", "").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%q: %s", text, resp.Status)
		}
	}
}

func TestBadKeysAndCertificates(t *testing.T) {
	p := newPKI(t)
	p.made(t, "server", nil)
	p.made(t, "other", nil)
	good := config.TCP{Certificate: p.file("server.pem"), Key: p.file("server.key"), ClientCA: p.file("authority.pem")}
	_, signer := p.made(t, "tpm", nil)
	if _, err := tlsConfig(&good, nil); err != nil {
		t.Fatal(err)
	}
	inTPM := config.TCP{Certificate: p.file("tpm.pem"), Key: config.KeyInTPM, ClientCA: p.file("authority.pem")}
	if _, err := tlsConfig(&inTPM, signer); err != nil {
		t.Error(err)
	}
	open := filepath.Join(t.TempDir(), "open.key")
	data, err := os.ReadFile(good.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(open, data, 0o600), os.Chmod(open, 0o640)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*config.TCP)
		want   string
	}{
		{func(c *config.TCP) { c.Certificate = "/nowhere" }, "api.tcp.certificate"},
		{func(c *config.TCP) { c.Key = "/nowhere" }, "api.tcp.key"},
		{func(c *config.TCP) { c.Key = open }, "chmod 0600"},
		{func(c *config.TCP) { c.Key = p.file("other.key") }, "do not make a pair"},
		{func(c *config.TCP) { c.ClientCA = good.Key }, "holds no certificate"},
		{func(c *config.TCP) { c.Key = config.KeyInTPM }, "not for the key in this device's TPM"},
		{func(c *config.TCP) { c.Key, c.Certificate = config.KeyInTPM, good.Key }, "holds no certificate"},
	} {
		bad := good
		c.change(&bad)
		if _, err := tlsConfig(&bad, signer); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", bad, err, c.want)
		}
	}
}

func TestScopesOfUsers(t *testing.T) {
	a, err := newAccess(&config.API{Others: config.ScopeNone, Peers: []config.Peer{
		{Who: "user:4001", Scope: config.ScopeViewer}, {Who: "group:4100", Scope: config.ScopeEnroller},
		{Who: "user:4002", Scope: config.ScopeOperator}, {Who: "user:4002", Scope: config.ScopeViewer},
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.own = 4999
	for _, c := range []struct {
		uid, gid uint32
		want     string
	}{
		{0, 0, config.ScopeOperator}, {4999, 4999, config.ScopeOperator}, {4001, 4001, config.ScopeViewer},
		{4001, 4100, config.ScopeEnroller}, {4003, 4100, config.ScopeEnroller}, {4003, 4003, config.ScopeNone},
		{4002, 4100, config.ScopeOperator},
	} {
		if got := a.ofUser(c.uid, c.gid); got != c.want {
			t.Errorf("uid %d gid %d: %s, want %s", c.uid, c.gid, got, c.want)
		}
	}
	for _, who := range []string{"user:no-such-user", "group:no-such-group"} {
		if _, err := newAccess(&config.API{Peers: []config.Peer{{Who: who, Scope: config.ScopeViewer}}}); err == nil || !strings.Contains(err.Error(), who) {
			t.Errorf("%s: %v", who, err)
		}
	}
}

// TestPeersAreKnown: the user at the other end of the socket stands in the context.
func TestPeersAreKnown(t *testing.T) {
	got := make(chan *client, 1)
	socket, _ := startServer(t, testBounds(), func(_ http.ResponseWriter, r *http.Request) { got <- clientOf(r.Context()) })
	conn := connect(t, socket)
	get(t, conn)
	answered(t, conn)
	c := <-got
	if want := fmt.Sprintf("uid %d gid %d pid %d", os.Getuid(), os.Getgid(), os.Getpid()); c.who != want || c.key != fmt.Sprintf("uid %d", os.Getuid()) {
		t.Errorf("%+v, want %s", c, want)
	}
}

func TestRates(t *testing.T) {
	now := time.Unix(1e9, 0)
	l := newRates(2, 3, func() time.Time { return now })
	one, two := &client{key: "1"}, &client{key: "2"}
	for i := range 3 {
		if err := l.allow(one); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	err := l.allow(one)
	p := newProblem(err, nil)
	if !errors.Is(err, errRate) || p.Status != http.StatusTooManyRequests || p.retry != 500*time.Millisecond {
		t.Errorf("%v, %+v", err, p)
	}
	if err := l.allow(two); err != nil {
		t.Errorf("another client pays: %v", err)
	}
	now = now.Add(p.retry)
	if err := l.allow(one); err != nil {
		t.Errorf("after the time that was named: %v", err)
	}
	for i := range 3 * maxClients {
		if err := l.allow(&client{key: fmt.Sprint("many ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.clients) != maxClients || l.recent.Len() != maxClients {
		t.Errorf("%d clients are remembered", len(l.clients))
	}
	if err := newRates(0, 1, time.Now).allow(one); err != nil {
		t.Error(err)
	}
}

func TestWhoAsksTooOftenIsTold(t *testing.T) {
	s := serveFake(t, defaultBounds(), func(c *config.Config) { c.API.RatePerSecond, c.API.Burst = 0.01, 2 })
	for i, want := range []int{200, 200, 429} {
		resp, body := s.fetch(t, "socket 1", "", http.MethodGet, "/v1/health/live", "", nil)
		if resp.StatusCode != want {
			t.Errorf("request %d: %s %s", i, resp.Status, body)
		}
		if after := resp.Header.Get("Retry-After"); want == 429 && after != "100" {
			t.Errorf("Retry-After %q", after)
		}
	}
	if resp, _ := s.fetch(t, "TLS 1", "desk", http.MethodGet, "/v1/health/live", "", nil); resp.StatusCode != 200 {
		t.Errorf("another client pays: %s", resp.Status)
	}
}

// laterErr is what a scheduler answers that cannot make it in time.
type laterErr struct{ error }

func (laterErr) RetryAfter() time.Duration { return 1200 * time.Millisecond }

func TestOverload(t *testing.T) {
	p := newProblem(fmt.Errorf("cannot do it: %w", laterErr{core.ErrQuality}), nil)
	w := newRecorderFor(t, p)
	if p.Status != 503 || p.Code != "overloaded" || w.Get("Retry-After") != "2" {
		t.Errorf("%+v, Retry-After %q", p, w.Get("Retry-After"))
	}
}

func newRecorderFor(t *testing.T, p *Problem) http.Header {
	t.Helper()
	var b bytes.Buffer
	w := &answerTo{&b, http.Header{}}
	if err := p.write(w); err != nil {
		t.Fatal(err)
	}
	return w.h
}

type answerTo struct {
	io.Writer
	h http.Header
}

func (a *answerTo) Header() http.Header { return a.h }
func (a *answerTo) WriteHeader(int)     {}

func TestDeadlines(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	for _, c := range []struct {
		text string
		want int
	}{{"5000", 200}, {"1", 0}, {"0", 400}, {"60001", 400}, {"-1", 400}, {"x", 400}, {"", 400}, {"1.5", 400}} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("socket", "/v1/identify"), bytes.NewReader(fake.Picture(t, 1, true, true, 1)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", typePNG)
		r.Header[http.CanonicalHeaderKey(deadlineHeader)] = []string{c.text}
		resp, err := s.http(t, "socket 1", "").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if c.want != 0 && resp.StatusCode != c.want || c.want == 0 && resp.StatusCode != 200 && resp.StatusCode != 503 {
			t.Errorf("%q: %s", c.text, resp.Status)
		}
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	_, err := Direct(s.app).Identify(ctx, fake.Picture(t, 1, true, true, 1))
	var p *Problem
	if err == nil || errors.As(err, &p) && (p.Status != 503 || p.Code != "timeout") {
		t.Errorf("a deadline in the past: %v", err)
	}
}

func TestFigures(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	s.fetch(t, "socket 1", "", http.MethodGet, "/v1/health", "", nil)
	s.fetch(t, "socket 1", "", http.MethodGet, "/v1/nothing", "", nil)
	resp, body := s.fetch(t, "TLS 2", "desk", http.MethodGet, "/v1/metrics", "", nil)
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%s %s", resp.Status, resp.Header)
	}
	for _, want := range []string{
		`vigil_http_requests_total{method="GET",route="/v1/health",status="200"} 1`,
		`vigil_http_requests_total{method="GET",route="none",status="404"} 1`,
		`vigil_http_problems_total{code="no_route"} 1`,
		`vigil_http_connections{listener="network"}`, `vigil_gallery_templates{modality="face",model="m"} 0`,
		`vigil_people 0`, `vigil_outbox_records 1`, `vigil_info{`, `go_goroutines`, `process_resident_memory_bytes`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in the figures", want)
		}
	}
}

func TestHealth(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	resp, body := s.fetch(t, "socket 1", "", http.MethodGet, "/v1/health", "", nil)
	var h Health
	if err := json.Unmarshal(body, &h); err != nil || resp.StatusCode != 200 || !h.Ready || h.State == "" || len(h.Notes) == 0 {
		t.Errorf("%s %s, %v", resp.Status, body, err)
	}
	d := daemontest.NewFake(t, fake.New(), nil)
	_, bare := opened(t, d)
	for path, want := range map[string]int{"/v1/health": 200, "/v1/health/live": 200, "/v1/health/ready": 503} {
		if w := send(t, bare, http.MethodGet, path, ""); w.Code != want {
			t.Errorf("without a model %s: %d %s", path, w.Code, w.Body)
		}
	}
}
