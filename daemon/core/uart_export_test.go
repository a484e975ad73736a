package core

import (
	"testing"

	"vigil/sensors/uart"
	"vigil/store"
)

// SetUARTTiming is for modules that are played faster than real ones. Call it before sensors are added.
func SetUARTTiming(t uart.Timing) { uartTiming = t }

// Actuations are the audit entries of outputs.
func (a *Appliance) Actuations(t testing.TB) (list []store.AuditEntry) {
	t.Helper()
	err := a.store.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.Audit(1, 1000)
		for _, e := range all {
			if e.Type == "actuation" {
				list = append(list, e)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
