package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of the TPM 2.0 wire format: the header of every command and response,
// and the largest response any known TPM sends.
const (
	headerBytes      = 10
	maxResponseBytes = 4096
)

// link carries one command at a time. After an error it is unusable.
type link interface {
	exchange(command []byte, timeout time.Duration) ([]byte, error)
	Close() error
}

// socketLink is a raw TPM byte stream over a socket, as swtpm's data channel.
type socketLink struct{ conn net.Conn }

func dialSocket(path string, timeout time.Duration) (link, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return &socketLink{conn: conn}, nil
}

func (l *socketLink) exchange(command []byte, timeout time.Duration) ([]byte, error) {
	if err := l.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	if _, err := l.conn.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, headerBytes, 512)
	if _, err := io.ReadFull(l.conn, response); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(response[2:])
	if size < headerBytes || size > maxResponseBytes {
		return nil, fmt.Errorf("response announces %d bytes", size)
	}
	response = append(response, make([]byte, size-headerBytes)...)
	_, err := io.ReadFull(l.conn, response[headerBytes:])
	return response, err
}

func (l *socketLink) Close() error { return l.conn.Close() }

// deviceLink is a character device that takes a command in one write and gives
// the response in one read, as /dev/tpmrm0. The descriptor is non-blocking and
// polled here: the Go runtime's poller reads before it waits, and the TPM driver
// answers such a read with an end of file.
type deviceLink struct{ fd int }

func openDevice(path string) (link, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeCharDevice == 0 {
		return nil, errors.New("not a character device")
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return &deviceLink{fd: fd}, nil
}

func (l *deviceLink) exchange(command []byte, timeout time.Duration) ([]byte, error) {
	n, err := unix.Write(l.fd, command)
	if err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	if n != len(command) {
		return nil, io.ErrShortWrite
	}
	if err := pollReadable(l.fd, time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	response := make([]byte, maxResponseBytes)
	n, err = unix.Read(l.fd, response)
	if err != nil {
		return nil, os.NewSyscallError("read", err)
	}
	response = response[:n]
	if n < headerBytes || binary.BigEndian.Uint32(response[2:]) != uint32(n) {
		return nil, fmt.Errorf("response of %d bytes does not match its header", n)
	}
	return response, nil
}

func (l *deviceLink) Close() error { return unix.Close(l.fd) }

// pollReadable waits until fd can be read or the deadline has passed.
func pollReadable(fd int, deadline time.Time) error {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR) || (err == nil && n == 0):
		case err != nil:
			return os.NewSyscallError("poll", err)
		default:
			return nil
		}
	}
}
