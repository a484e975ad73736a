package uart

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Commands of the data sheets.
const (
	cmdGetImage    = 0x01
	cmdUpload      = 0x0A
	cmdSetSystem   = 0x0E
	cmdReadSystem  = 0x0F
	cmdSetPassword = 0x12
	cmdVerify      = 0x13
	cmdAura        = 0x35 // ring light of the R503 and its like
	cmdLightOn     = 0x50 // backlight of ZFM and R30x
	cmdLightOff    = 0x51
)

// Registers of cmdSetSystem.
const (
	regBaud       = 4
	regSecurity   = 5
	regPacketSize = 6
)

// baudUnit: modules count their baud rate in these.
const baudUnit = 9600

// Parameters are what a module says of itself.
type Parameters struct {
	Status      uint16 // bit 0 busy, 1 a print matched, 2 password verified, 3 a picture lies in the buffer
	SystemID    uint16
	Capacity    int // templates that the module could keep
	Security    int // 1 to 5, of the module's own matcher, which is not used
	Address     uint32
	PacketBytes int // 32, 64, 128 or 256
	Baud        int
}

// Module is one module at a port. Not safe for concurrent use; it does not own the port.
type Module struct {
	link *link
}

// NewModule speaks to the module of an address; 0 means AnyAddress.
func NewModule(p Port, address uint32, t Timing) *Module {
	if address == 0 {
		address = AnyAddress
	}
	return &Module{newLink(p, address, t.withDefaults())}
}

// Verify shakes hands: it presents the password. Errors: ErrPassword, those of every command: ErrStuck, *LineError,
// *CodeError, the context's and the port's.
func (m *Module) Verify(ctx context.Context, password uint32) error {
	code, _, err := m.link.ask(ctx, append([]byte{cmdVerify}, be32(password)...)...)
	switch {
	case err != nil:
		return err
	case code == CodePassword:
		return ErrPassword
	case code != OK:
		return &CodeError{cmdVerify, code}
	}
	return nil
}

// SetPassword changes the password that Verify needs. The module keeps it in its flash memory.
func (m *Module) SetPassword(ctx context.Context, password uint32) error {
	_, err := m.link.order(ctx, append([]byte{cmdSetPassword}, be32(password)...)...)
	return err
}

// Parameters reads them.
func (m *Module) Parameters(ctx context.Context) (Parameters, error) {
	b, err := m.link.order(ctx, cmdReadSystem)
	if err != nil {
		return Parameters{}, err
	}
	if len(b) != 16 {
		return Parameters{}, fmt.Errorf("the module describes itself in %d bytes, not 16: it is of another family", len(b))
	}
	u := func(i int) uint16 { return binary.BigEndian.Uint16(b[i:]) }
	p := Parameters{
		Status: u(0), SystemID: u(2), Capacity: int(u(4)), Security: int(u(6)), Address: binary.BigEndian.Uint32(b[8:]),
		PacketBytes: 32 << min(u(12), 4), Baud: int(u(14)) * baudUnit,
	}
	if u(12) > 3 {
		return Parameters{}, fmt.Errorf("the module names packet size %d, which no module has", u(12))
	}
	return p, nil
}

// SetPacketBytes sets the content of data packets: 32, 64, 128 or 256.
func (m *Module) SetPacketBytes(ctx context.Context, bytes int) error {
	i := slices.Index([]int{32, 64, 128, 256}, bytes)
	if i < 0 {
		return fmt.Errorf("packets of %d bytes: 32, 64, 128 or 256", bytes)
	}
	return m.set(ctx, regPacketSize, byte(i))
}

// SetSecurity sets the level, 1 to 5, of the module's own matcher.
func (m *Module) SetSecurity(ctx context.Context, level int) error {
	if level < 1 || level > 5 {
		return fmt.Errorf("security level %d: 1 to 5", level)
	}
	return m.set(ctx, regSecurity, byte(level))
}

// SetBaud sets the rate of the line, a multiple of 9,600 up to 115,200. The module acknowledges at the old rate and listens
// at the new one from then on: the caller must open the port again.
func (m *Module) SetBaud(ctx context.Context, baud int) error {
	if baud%baudUnit != 0 || baud < baudUnit || baud > 12*baudUnit {
		return fmt.Errorf("baud rate %d: a multiple of 9600 up to 115200", baud)
	}
	return m.set(ctx, regBaud, byte(baud/baudUnit))
}

func (m *Module) set(ctx context.Context, register, value byte) error {
	_, err := m.link.order(ctx, cmdSetSystem, register, value)
	return err
}

// Light switches the light under the glass; modules with a ring get it in blue. A module without a light that obeys is a
// *CodeError.
func (m *Module) Light(ctx context.Context, on bool) error {
	aura, plain := []byte{cmdAura, 4, 0, 2, 0}, byte(cmdLightOff) // control 4: off
	if on {
		aura[1], plain = 3, cmdLightOn // control 3: on; colour 2: blue
	}
	_, err := m.link.order(ctx, plain)
	if refused := new(CodeError); errors.As(err, &refused) {
		_, err = m.link.order(ctx, aura...)
	}
	return err
}

// Look takes a picture into the module's buffer. OK: it is there; CodeNoFinger: nobody touches the glass; CodeNoPicture:
// somebody does, or did, and the picture failed.
func (m *Module) Look(ctx context.Context) (Code, error) {
	code, _, err := m.link.ask(ctx, cmdGetImage)
	return code, err
}

// Upload fetches the picture in the module's buffer into dst, 4 bits a pixel, the left one in the upper half of a byte. dst
// must be of the module's size. A damaged transfer is asked for again, a bounded number of times. Errors: ErrLifted if the
// module has no picture after all, *LineError, those of every command.
func (m *Module) Upload(ctx context.Context, dst []byte) error {
	var last *LineError
	for n := range tries {
		if n > 0 {
			m.link.again++
			if err := m.link.drain(ctx); err != nil {
				return err
			}
		}
		switch code, _, err := m.link.ask(ctx, cmdUpload); {
		case err != nil:
			return err
		case code == CodeNoUpload || code == CodeNoImage:
			return ErrLifted
		case code != OK:
			return &CodeError{cmdUpload, code}
		}
		err := m.link.collect(ctx, dst)
		if err == nil || !errors.As(err, &last) {
			return err
		}
	}
	last.Tries = tries
	return last
}

// collect takes data packets until dst is full. Anything that is not exactly that is a *LineError.
func (l *link) collect(ctx context.Context, dst []byte) error {
	before := l.decoder.Counts
	for got := 0; ; {
		p, err := l.receive(ctx, l.timing.Gap)
		switch {
		case errors.Is(err, errTimeout):
			if !l.decoder.Flush() && l.worst(before) == noDamage {
				l.decoder.Counts[Truncated]++ // it ended between two packets
			}
			return &LineError{Damage: l.worst(before)}
		case err != nil:
			return err
		case l.worst(before) != noDamage && l.worst(before) != Noise && l.worst(before) != BadAddress:
			return &LineError{Damage: l.worst(before)} // something of the picture is lost: no use to wait for the rest
		case p.Kind != Data && p.Kind != End || len(p.Content) > len(dst)-got || (p.Kind == End) != (got+len(p.Content) == len(dst)):
			l.decoder.Counts[Unexpected]++
			return &LineError{Damage: Unexpected}
		}
		got += copy(dst[got:], p.Content)
		if p.Kind == End {
			return nil
		}
	}
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
