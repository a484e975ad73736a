package uart

import (
	"errors"
	"fmt"
)

// Named states of a reader. A Source returns them from Next, wrapped with the port and the remedy.
var (
	// ErrBaudRate: the module answers, but not at the baud rate of the configuration. The error names its rate.
	ErrBaudRate = errors.New("wrong baud rate")
	// ErrSilent: the port is there and nothing answers at any rate.
	ErrSilent = errors.New("no module answers")
	// ErrStuck: the module answered before and does not any more, or keeps sending what nobody asked for.
	ErrStuck = errors.New("module is stuck")
	// ErrPassword: the module refuses the password.
	ErrPassword = errors.New("wrong password")
	// ErrLifted: the finger left the glass before its picture was whole.
	ErrLifted = errors.New("finger was lifted too early")
)

// LineError says that a reply did not come through whole, however often it was asked for.
type LineError struct {
	Damage Damage // the last that was seen
	Tries  int
}

func (e *LineError) Error() string {
	return fmt.Sprintf("the line is damaged (%s, %d tries): check cable, ground and baud rate", e.Damage, e.Tries)
}

// Code is the first byte of an acknowledgement.
type Code byte

// Codes that this driver tells apart.
const (
	OK            Code = 0x00
	CodeReceive   Code = 0x01 // the module did not get the command whole
	CodeNoFinger  Code = 0x02
	CodeNoPicture Code = 0x03 // the finger was there, its picture could not be taken
	CodeNoUpload  Code = 0x0F // the picture cannot be sent
	CodePassword  Code = 0x13
	CodeNoImage   Code = 0x15 // there is no valid picture in the buffer
	CodeRegister  Code = 0x1A
	CodeLocked    Code = 0x21 // the password must be verified first
)

// CodeError is a refusal of the module.
type CodeError struct {
	Command byte
	Code    Code
}

func (e *CodeError) Error() string {
	return fmt.Sprintf("the module refuses command %#02x with code %#02x", e.Command, byte(e.Code))
}
