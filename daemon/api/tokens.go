package api

import (
	"fmt"
	"time"
)

// maxLifeSeconds is 100 years.
const maxLifeSeconds = 100 * 365 * 24 * 3600

// checkLife bounds how long a token is good for.
func checkLife(seconds int64) error {
	if seconds >= 0 && seconds <= maxLifeSeconds {
		return nil
	}
	return fmt.Errorf("%w: expires_seconds %d: 0 (never) to %d", errBadRequest, seconds, maxLifeSeconds)
}

func (h *handler) createToken(r request) (any, error) {
	var q TokenRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if err := checkLife(q.ExpiresSeconds); err != nil {
		return nil, err
	}
	t, secret, err := h.app.CreateToken(r.Context(), q.Name, q.Scope, time.Duration(q.ExpiresSeconds)*time.Second)
	if err != nil {
		return nil, err
	}
	return NewToken{t, secret}, nil
}
