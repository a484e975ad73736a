package uart_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"vigil/sensors/uart"
	"vigil/sensors/uart/uarttest"
)

// TestAModuleIsSet changes password and rate of a played module, and finds it as it was set.
func TestAModuleIsSet(t *testing.T) {
	m, err := uarttest.New(uarttest.Options{Baud: 57600, Speed: 40, Password: 7})
	if err != nil {
		t.Skip(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o := uart.Options{
		Name: "reader", Path: m.Path(), Password: 7,
		Timing: uart.Timing{Reply: time.Second, Gap: 50 * time.Millisecond, Poll: 5 * time.Millisecond, Retry: 20 * time.Millisecond},
	}
	if p, err := uart.Configure(ctx, o, uart.Change{}); err != nil || p.Baud != 57600 {
		t.Fatalf("%+v, %v", p, err)
	}
	fresh := uint32(0xC0FFEE42)
	if p, err := uart.Configure(ctx, o, uart.Change{Baud: 115200, Password: &fresh}); err != nil || p.Baud != 115200 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := uart.Configure(ctx, o, uart.Change{Baud: 9600}); !errors.Is(err, uart.ErrPassword) {
		t.Errorf("with the old password: %v", err)
	}
	o.Password = fresh
	if p, err := uart.Configure(ctx, o, uart.Change{}); err != nil || p.Baud != 115200 {
		t.Errorf("behind the change: %+v, %v", p, err)
	}
	if p, err := uart.Configure(ctx, o, uart.Change{Baud: 12345}); err == nil {
		t.Errorf("a rate that no module has: %+v", p)
	}
}
