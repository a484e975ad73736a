package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"vigil/daemon/config"
	"vigil/store"
)

// MaxTokens bounds the tokens of a device. With them the record of all still fits into one setting of the store.
const MaxTokens = 64

// Errors of tokens.
var (
	// ErrTokens: there are MaxTokens already.
	ErrTokens = errors.New("too many tokens")
	// ErrNoToken: no token of that id.
	ErrNoToken = errors.New("no such token")
)

// Token lets its holder use the local interface with a scope. The secret itself is kept nowhere.
type Token struct {
	ID      string    `json:"id"` // 16 hex digits; tells nothing about the secret
	Name    string    `json:"name"`
	Scope   string    `json:"scope"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// Expired reports whether the token is of no use any more.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// storedToken is a token as the store keeps it, sealed like every setting.
type storedToken struct {
	Token
	Hash []byte `json:"hash"` // SHA-256 of the secret, which has 256 random bits: nothing slower is needed
}

// tokenTable is the tokens in memory, read at first use.
type tokenTable struct {
	mu   sync.Mutex
	read bool
	list []storedToken // replaced, never changed
}

const settingTokens = "api-tokens"

// tokenPrefix begins every secret, so that people and scanners of leaked secrets recognise one.
const tokenPrefix = "vigil_"

var tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

// load returns the tokens. The caller holds the lock.
func (t *tokenTable) load(ctx context.Context, s *store.Store) ([]storedToken, error) {
	if t.read {
		return t.list, nil
	}
	err := s.View(ctx, func(tx *store.Tx) error {
		text, err := tx.Get(settingTokens)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &t.list)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the tokens: %w", err)
	}
	t.read = true
	return t.list, nil
}

// change stores another list together with an audit event.
func (a *Appliance) changeTokens(ctx context.Context, list []storedToken, kind string, t Token) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	detail := noteCaller(ctx, map[string]any{"token": t.ID, "name": t.Name, "scope": t.Scope})
	if !t.Expires.IsZero() {
		detail["expires"] = t.Expires
	}
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.AppendAudit(store.AuditEvent{Time: a.now().UTC(), Type: kind, Detail: detail}); err != nil {
			return err
		}
		return tx.Put(settingTokens, text)
	})
	if err != nil {
		return err
	}
	a.serving.tokens.list = list
	a.serving.news.tell()
	a.log.Info(kind, "token", t.ID, "name", t.Name, "scope", t.Scope)
	return nil
}

// CreateToken makes a token that is good for a time (0: for ever) and returns its secret, which can never be had again. Tokens
// that have expired make room. Errors: store.ErrInvalid, ErrTokens.
func (a *Appliance) CreateToken(ctx context.Context, name, scope string, life time.Duration) (Token, string, error) {
	if !tokenName.MatchString(name) {
		return Token{}, "", fmt.Errorf("%w: name %q of a token: 1 to 63 of a-z, 0-9, dot and dash", store.ErrInvalid, name)
	}
	if !slices.Contains([]string{config.ScopeViewer, config.ScopeEnroller, config.ScopeOperator}, scope) {
		return Token{}, "", fmt.Errorf("%w: scope %q of a token: one of viewer, enroller, operator", store.ErrInvalid, scope)
	}
	if life < 0 || life > 100*365*24*time.Hour {
		return Token{}, "", fmt.Errorf("%w: a token is good for 0 (for ever) to 100 years, not %v", store.ErrInvalid, life)
	}
	t := &a.serving.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	old, err := t.load(ctx, a.store)
	if err != nil {
		return Token{}, "", err
	}
	now := a.now().UTC().Truncate(time.Second) // shorter in the store
	list := slices.DeleteFunc(slices.Clone(old), func(s storedToken) bool { return s.Expired(a.now()) })
	if len(list) >= MaxTokens {
		return Token{}, "", fmt.Errorf("%w: there are %d: revoke one first (`vigild token list`)", ErrTokens, len(list))
	}
	var random [32]byte
	var id [8]byte
	rand.Read(random[:])
	rand.Read(id[:])
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	made := Token{ID: hex.EncodeToString(id[:]), Name: name, Scope: scope, Created: now}
	if life > 0 {
		made.Expires = now.Add(life)
	}
	sum := sha256.Sum256([]byte(secret))
	list = append(list, storedToken{made, sum[:]})
	if err := a.changeTokens(ctx, list, "token.create", made); err != nil {
		return Token{}, "", err
	}
	return made, secret, nil
}

// Tokens lists the tokens in the order in which they were made, expired ones too.
func (a *Appliance) Tokens(ctx context.Context) ([]Token, error) {
	t := &a.serving.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	stored, err := t.load(ctx, a.store)
	list := make([]Token, len(stored))
	for i, s := range stored {
		list[i] = s.Token
	}
	return list, err
}

// RevokeToken makes a token useless at once. Errors: ErrNoToken.
func (a *Appliance) RevokeToken(ctx context.Context, id string) error {
	t := &a.serving.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	old, err := t.load(ctx, a.store)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(old, func(s storedToken) bool { return s.ID == id })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrNoToken, id)
	}
	return a.changeTokens(ctx, slices.Delete(slices.Clone(old), i, i+1), "token.revoke", old[i].Token)
}

// TokenOf finds the token of a secret, comparing in constant time with all. Errors: ErrNoToken, also for one that has
// expired.
func (a *Appliance) TokenOf(ctx context.Context, secret string) (Token, error) {
	t := &a.serving.tokens
	t.mu.Lock()
	list, err := t.load(ctx, a.store)
	t.mu.Unlock()
	if err != nil {
		return Token{}, err
	}
	sum, found := sha256.Sum256([]byte(secret)), -1
	for i := range list {
		if subtle.ConstantTimeCompare(sum[:], list[i].Hash) == 1 {
			found = i
		}
	}
	if found < 0 || list[found].Expired(a.now()) {
		return Token{}, fmt.Errorf("%w: it is unknown, revoked or expired", ErrNoToken)
	}
	return list[found].Token, nil
}
