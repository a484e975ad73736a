package uart

import (
	"context"
	"fmt"
)

// Change is what is to be different at a module. The module keeps it in its flash memory.
type Change struct {
	Baud     int     // 0 leaves it
	Password *uint32 // nil leaves it
}

// Configure finds the module at a port, at whatever rate it speaks, changes it, and makes sure that it answers as it was
// changed. Without a change it only says what the module is. The port must not be in use; the options are those of Open, with
// the password of now. Errors: those of a Source's Next; ErrPassword if the password of now is another.
func Configure(ctx context.Context, o Options, c Change) (p Parameters, err error) {
	o.Baud, o.Light = 0, false
	s, err := Open(o)
	if err != nil {
		return p, err
	}
	defer s.Close() //nolint:errcheck // it never fails
	s.busy.Lock()
	defer func() {
		s.disconnect()
		s.busy.Unlock()
	}()
	if err := s.find(ctx); err != nil {
		return p, fmt.Errorf("%s: %w", o.Path, err)
	}
	if err := s.change(ctx, c); err != nil {
		return p, fmt.Errorf("%s: %w", o.Path, err)
	}
	return s.module.Parameters(ctx)
}

// change does one thing after the other, each of them proved.
func (s *Source) change(ctx context.Context, c Change) error {
	if c.Password != nil {
		if err := s.module.SetPassword(ctx, *c.Password); err != nil {
			return fmt.Errorf("the password is as it was: %w", err)
		}
		s.opts.Password = *c.Password
		if err := s.module.Verify(ctx, *c.Password); err != nil {
			return fmt.Errorf("the module took a new password and does not know it: %w", err)
		}
	}
	if c.Baud == 0 || c.Baud == s.Stats().Baud {
		return nil
	}
	if err := s.module.SetBaud(ctx, c.Baud); err != nil {
		return fmt.Errorf("the rate is as it was: %w", err)
	}
	if err := s.shake(ctx, c.Baud); err != nil {
		return fmt.Errorf("the module took %d baud and does not answer there: %w", c.Baud, err)
	}
	return s.greet(ctx, c.Baud)
}
