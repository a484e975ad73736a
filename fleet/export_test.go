package fleet

// Reasons lists all refusal reasons for tests that want to be complete.
func Reasons() []Reason {
	return []Reason{
		ReasonTooLarge, ReasonUnsigned, ReasonAlgorithm, ReasonHeader, ReasonUnknownKey, ReasonSignature, ReasonMalformed,
		ReasonForeign, ReasonClock, ReasonLifetime, ReasonExpired, ReasonFuture, ReasonUnknown, ReasonReplayed,
	}
}

// MaxPacketBytes is the bound of the guard.
const MaxPacketBytes = maxPacketBytes

// SignUnchecked signs any payload with the authority's key.
func (a *Authority) SignUnchecked(payload []byte) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return signJWS(a.key, KeyID(a.pub), payload)
}
