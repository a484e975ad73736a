package core

import (
	"context"
	"crypto"

	"vigil/daemon/config"
)

type callerKey struct{}

// WithCaller notes in a context who asks for what is done under it, in words for the audit: "uid 1000 gid 100 pid 4711". What
// is audited under the context names the caller as "by".
func WithCaller(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, callerKey{}, who)
}

// callerOf is who asked; "local" where nobody was noted, as for a command that opened the device itself.
func callerOf(ctx context.Context) string {
	if who, ok := ctx.Value(callerKey{}).(string); ok {
		return "local: " + who
	}
	return "local"
}

// noteCaller adds to the detail of an audit event who asked for it; what the device did by itself has no caller.
func noteCaller(ctx context.Context, detail map[string]any) map[string]any {
	if who, ok := ctx.Value(callerKey{}).(string); ok {
		if detail == nil {
			detail = map[string]any{}
		}
		detail["by"] = "local: " + who
	}
	return detail
}

// TLSSigner is the device's TLS key, which never leaves the TPM. It signs until Close.
func (a *Appliance) TLSSigner() crypto.Signer { return a.device.Signer() }

// APIConfig is how the local interface is configured.
func (a *Appliance) APIConfig() config.API { return a.cfg.API }
