package decide

import (
	"encoding/json"
	"fmt"
	"time"
)

// MaxLocks bounds the keys watched, so that the state fits one small setting of the store. When full, the key whose last
// failures began first and that is not locked is forgotten; if all are locked, the one that is freed soonest.
const MaxLocks = 128

// Lockouts counts failed attempts per key (a claimed identity) and locks a key after too many in a window.
type Lockouts struct {
	policy *Policy
	keys   map[string]*attempts
}

// attempts of one key. Times are kept in milliseconds since 1970, short for the store.
type attempts struct {
	Count int   `json:"n,omitempty"`     // failures since Since
	Since int64 `json:"since,omitempty"` // the first of them
	Until int64 `json:"until,omitempty"` // locked until then
}

func (a *attempts) lockedAt(now time.Time) bool { return now.UnixMilli() < a.Until }

// NewLockouts starts with no failures.
func NewLockouts(p *Policy) *Lockouts {
	return &Lockouts{policy: p, keys: map[string]*attempts{}}
}

// Locked returns until when the key is locked; the zero time if it is not. A clock that was set back cannot make a
// lockout longer than the policy's.
func (l *Lockouts) Locked(key string, now time.Time) time.Time {
	a := l.keys[key]
	if a == nil || !a.lockedAt(now) {
		return time.Time{}
	}
	a.Until = min(a.Until, now.Add(l.policy.Lockout).UnixMilli())
	return time.UnixMilli(a.Until)
}

// Failure counts a failed attempt and reports whether it locked the key. The window begins with the first failure and is
// not moved by later ones.
func (l *Lockouts) Failure(key string, now time.Time) bool {
	if l.policy.MaxFailures == 0 {
		return false
	}
	a := l.keys[key]
	if a == nil {
		l.makeRoom(now)
		a = &attempts{}
		l.keys[key] = a
	}
	if age := now.Sub(time.UnixMilli(a.Since)); a.Count == 0 || age > l.policy.FailureWindow || age < 0 {
		a.Count, a.Since = 0, now.UnixMilli()
	}
	if a.Count++; a.Count < l.policy.MaxFailures {
		return false
	}
	a.Count, a.Until = 0, now.Add(l.policy.Lockout).UnixMilli()
	return true
}

// Success forgets the key's failures. A lock stays until its time is over.
func (l *Lockouts) Success(key string) {
	if a := l.keys[key]; a != nil {
		if a.Count = 0; a.Until == 0 {
			delete(l.keys, key)
		}
	}
}

// Forget drops the key, for an identity that was deleted.
func (l *Lockouts) Forget(key string) { delete(l.keys, key) }

func (l *Lockouts) makeRoom(now time.Time) {
	if len(l.keys) < MaxLocks {
		return
	}
	victim, worth := "", int64(0)
	for k, a := range l.keys {
		w := a.Since
		if a.lockedAt(now) {
			w = a.Until // in the future, so behind all that are not locked
		}
		if victim == "" || w < worth {
			victim, worth = k, w
		}
	}
	delete(l.keys, victim)
}

// MarshalJSON gives the state to be persisted.
func (l *Lockouts) MarshalJSON() ([]byte, error) { return json.Marshal(l.keys) }

// UnmarshalJSON restores the state; policy is kept. What cannot be read or cannot be is an error and changes nothing.
func (l *Lockouts) UnmarshalJSON(data []byte) error {
	keys := map[string]*attempts{}
	if err := json.Unmarshal(data, &keys); err != nil {
		return fmt.Errorf("lockout state: %w", err)
	}
	if len(keys) > MaxLocks {
		return fmt.Errorf("lockout state: %d keys, at most %d", len(keys), MaxLocks)
	}
	if keys == nil { // the document was null
		keys = map[string]*attempts{}
	}
	for k, a := range keys {
		switch {
		case a == nil:
			delete(keys, k)
		case a.Count < 0: // would be so many failures that cost nothing
			return fmt.Errorf("lockout state: %d failures", a.Count)
		}
	}
	l.keys = keys
	return nil
}
