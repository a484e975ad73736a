// Package gpio drives output lines through the kernel's GPIO character device, with the second version of its interface
// (Linux 5.10 and later; include/uapi/linux/gpio.h).
//
// Promises: lines are requested as outputs at rest, and belong to this process until Close; then the kernel takes them back,
// and what level they keep is the chip's affair. Set does one system call and does not block. Several lines are requested
// at once, and each is set alone.
package gpio

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the interface.
const (
	maxNameBytes = 32
	maxLines     = 64
	maxAttrs     = 10
	getLine      = 0xC250B407 // _IOWR(0xB4, 0x07, struct gpio_v2_line_request)
	setValues    = 0xC010B40F // _IOWR(0xB4, 0x0F, struct gpio_v2_line_values)
	flagLow      = 1 << 1     // GPIO_V2_LINE_FLAG_ACTIVE_LOW
	flagOutput   = 1 << 3     // GPIO_V2_LINE_FLAG_OUTPUT
)

// request is struct gpio_v2_line_request, 592 bytes.
type request struct {
	offsets   [maxLines]uint32
	consumer  [maxNameBytes]byte
	flags     uint64 // struct gpio_v2_line_config from here
	attrCount uint32
	_         [5]uint32
	attrs     [maxAttrs][3]uint64
	lines     uint32
	bufSize   uint32
	_         [5]uint32
	fd        int32
}

// values is struct gpio_v2_line_values.
type values struct{ bits, mask uint64 }

// Lines are requested lines of one chip.
type Lines struct {
	file *os.File
	n    int
}

// Open requests lines of a chip, such as /dev/gpiochip0, as outputs at rest. consumer is shown by gpioinfo.
func Open(chip string, offsets []int, activeLow bool, consumer string) (*Lines, error) {
	if len(offsets) == 0 || len(offsets) > maxLines {
		return nil, fmt.Errorf("%d lines of %s: 1 to %d", len(offsets), chip, maxLines)
	}
	f, err := os.OpenFile(chip, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the GPIO chip: %w", err)
	}
	defer f.Close()
	r := request{flags: flagOutput, lines: uint32(len(offsets))}
	if activeLow {
		r.flags |= flagLow
	}
	copy(r.consumer[:maxNameBytes-1], consumer)
	for i, o := range offsets {
		if o < 0 {
			return nil, fmt.Errorf("line %d of %s does not exist", o, chip)
		}
		r.offsets[i] = uint32(o)
	}
	switch err := ioctl(f, getLine, unsafe.Pointer(&r)); {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("lines %v of %s are used by somebody else (see gpioinfo): %w", offsets, chip, err)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("lines %v of %s: they do not exist, or the kernel is older than 5.10: %w", offsets, chip, err)
	case err != nil:
		return nil, fmt.Errorf("lines %v of %s: %w", offsets, chip, err)
	}
	return &Lines{os.NewFile(uintptr(r.fd), chip), len(offsets)}, nil
}

// Line is the i-th line of the request. It is valid until Close.
func (l *Lines) Line(i int) Line {
	if i < 0 || i >= l.n {
		panic(fmt.Sprintf("gpio: line %d of %d", i, l.n))
	}
	return Line{l, i}
}

// Close gives the lines back. It may be called once.
func (l *Lines) Close() error { return l.file.Close() }

// Line is one output. It implements actuators.Line.
type Line struct {
	lines *Lines
	i     int
}

// Set makes the line active or not.
func (l Line) Set(active bool) error {
	v := values{mask: 1 << l.i}
	if active {
		v.bits = v.mask
	}
	if err := ioctl(l.lines.file, setValues, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("%s: %w", l.lines.file.Name(), err)
	}
	return nil
}

func ioctl(f *os.File, number uintptr, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, number, uintptr(arg))
	})
	runtime.KeepAlive(arg)
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
