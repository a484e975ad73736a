package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vigil/daemon/config"
	"vigil/daemon/core"
)

// scopes in the order of what they may do; each may do what those before it may. What a route needs stands in routes.
var scopes = []string{config.ScopeNone, config.ScopeViewer, config.ScopeEnroller, config.ScopeOperator}

// allows reports whether a client with the scope have may do what needs the scope need.
func allows(have, need string) bool { return slices.Index(scopes, have) >= slices.Index(scopes, need) }

// client is who sends requests, as the connection proves it.
type client struct {
	key   string // for limits: what one client is
	who   string // for the audit
	scope string
}

type clientKey struct{}

func withClient(ctx context.Context, c *client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// inProcess is whoever opened the appliance in this process: it holds the keys anyway.
var inProcess = &client{key: "process", who: "in process", scope: config.ScopeOperator}

// local serves requests that come from this process.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(withClient(r.Context(), inProcess)))
	})
}

// access says who has which scope.
type access struct {
	own    uint32 // user of the daemon
	others string
	users  map[uint32]string
	groups map[uint32]string
	names  []config.TCPClient
}

// newAccess looks up the users and groups of the configuration. Errors name the one that does not exist.
func newAccess(cfg *config.API) (*access, error) {
	a := &access{
		own: uint32(os.Getuid()), others: cfg.Others, users: map[uint32]string{}, groups: map[uint32]string{}, names: cfg.TCP.Clients,
	}
	for i, p := range cfg.Peers {
		kind, name, _ := strings.Cut(p.Who, ":")
		table, find := a.users, userID
		if kind == "group" {
			table, find = a.groups, groupID
		}
		id, err := find(name)
		if err != nil {
			return nil, fmt.Errorf("cannot serve the local interface: api.peers[%d].who = %q: %w", i, p.Who, err)
		}
		if allows(p.Scope, table[id]) { // -1 for an id that is not in yet
			table[id] = p.Scope
		}
	}
	return a, nil
}

func userID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return userID(u.Uid)
}

func groupID(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return groupID(g.Gid)
}

// nobody is a connection that proved nothing; it needs a token.
var nobody = &client{key: "nobody", who: "nobody", scope: config.ScopeNone}

// ofConn is who is at the other end of a connection that was just accepted; nil for one of TLS, whose handshake is to come.
func (a *access) ofConn(c net.Conn) *client {
	u, ok := bare(c).(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nobody
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if errors.Join(err, failed) != nil {
		return nobody
	}
	return &client{
		key:   fmt.Sprintf("uid %d", cred.Uid),
		who:   fmt.Sprintf("uid %d gid %d pid %d", cred.Uid, cred.Gid, cred.Pid),
		scope: a.ofUser(cred.Uid, cred.Gid),
	}
}

// ofUser is the scope of a user of this machine.
func (a *access) ofUser(uid, gid uint32) string {
	if uid == 0 || uid == a.own {
		return config.ScopeOperator
	}
	scope, named := a.users[uid]
	if len(a.groups) > 0 {
		for _, g := range groupsOf(uid, gid) {
			if s, ok := a.groups[g]; ok {
				named = true
				if scope == "" || allows(s, scope) {
					scope = s
				}
			}
		}
	}
	if !named {
		return a.others
	}
	return scope
}

// groupsOf is the group of the connection and those that the user is in according to the system.
func groupsOf(uid, gid uint32) []uint32 {
	list := []uint32{gid}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return list
	}
	ids, err := u.GroupIds()
	if err != nil {
		return list
	}
	for _, text := range ids {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			list = append(list, uint32(n))
		}
	}
	return list
}

// ofCertificate is who has a certificate that the client authority signed.
func (a *access) ofCertificate(cert *x509.Certificate) *client {
	names := slices.Clone(cert.DNSNames)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	if len(names) == 0 {
		names = []string{cert.Subject.CommonName}
	}
	c := &client{key: "certificate " + names[0], who: fmt.Sprintf("certificate %q serial %x", names[0], cert.SerialNumber), scope: config.ScopeNone}
	for _, n := range a.names {
		if slices.Contains(names, n.Name) && allows(n.Scope, c.scope) {
			c.scope = n.Scope
		}
	}
	return c
}

// identify finds out who sends a request: whoever the connection is of, with the scope of the token if one is shown. Errors:
// errUnauthenticated for a token that is no good, errRate for a client that asks too often.
func (h *handler) identify(r *http.Request) (*client, error) {
	c, ok := r.Context().Value(clientKey{}).(*client)
	switch {
	case ok:
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		c = h.access.ofCertificate(r.TLS.PeerCertificates[0])
	default:
		c = nobody
	}
	if err := h.rates.allow(c); err != nil { // before the token is looked at: guessing is bounded too
		return c, err
	}
	secret, shown, err := bearer(r)
	if err != nil || !shown {
		return c, err
	}
	t, err := h.app.TokenOf(r.Context(), secret)
	if errors.Is(err, core.ErrNoToken) {
		return c, fmt.Errorf("%w: token: %w", errUnauthenticated, err)
	}
	if err != nil {
		return c, err
	}
	return h.ofToken(c, t)
}

// ofToken is a client with the scope of its token, which counts as a client of its own.
func (h *handler) ofToken(c *client, t core.Token) (*client, error) {
	c = &client{key: "token " + t.ID, who: fmt.Sprintf("token %s (%s), %s", t.ID, t.Name, c.who), scope: t.Scope}
	return c, h.rates.allow(c)
}

// bearer is the token of the header Authorization (RFC 6750). Another scheme is an error: whoever shows something wants it to
// be looked at.
func bearer(r *http.Request) (secret string, shown bool, err error) {
	list := r.Header.Values("Authorization")
	if len(list) == 0 {
		return "", false, nil
	}
	scheme, secret, _ := strings.Cut(list[0], " ")
	if len(list) > 1 || !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", true, fmt.Errorf("%w: the header Authorization must be \"Bearer TOKEN\", once", errUnauthenticated)
	}
	return secret, true, nil
}

// admit says whether a client may use a route of a scope.
func admit(c *client, need string) error {
	switch {
	case allows(c.scope, need):
		return nil
	case c.scope == config.ScopeNone:
		return fmt.Errorf("%w: show a token (`vigild token create`), or have the operator name this client in the configuration (api.peers, api.tcp.clients)", errUnauthenticated)
	}
	return fmt.Errorf("%w: it takes the scope %q, this client has %q", errScope, need, c.scope)
}
