package uarttest

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// PTY is a pseudo-terminal: the code under test opens Path as its serial port, the test speaks through Master.
type PTY struct {
	Master *os.File
	Path   string
	mu     sync.Mutex
	slave  *os.File // kept open: without a user the master reads errors; nil after Close
}

// OpenPTY makes one in raw mode. The caller owns it.
func OpenPTY() (*PTY, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a pseudo-terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx") // non-blocking: Close wakes a Read
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("cannot unlock a pseudo-terminal: %w", err)
	}
	p := &PTY{Master: master, Path: fmt.Sprintf("/dev/pts/%d", n)}
	if p.slave, err = os.OpenFile(p.Path, os.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		err = p.raw()
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("cannot open %s: %w", p.Path, err)
	}
	return p, nil
}

func (p *PTY) raw() error {
	fd := int(p.slave.Fd())
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// Baud is the rate that the user of the port has set.
func (p *PTY) Baud() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slave == nil {
		return 0
	}
	t, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS2)
	if err != nil {
		return 0
	}
	return int(t.Ospeed)
}

// Close takes the line away: the user's next read fails as with an unplugged adapter.
func (p *PTY) Close() {
	p.Master.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.slave != nil {
		p.slave.Close()
		p.slave = nil
	}
}
