package v4l2

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors/v4l2/internal/uapi"
)

// Node is an open video device: all that is asked of the kernel. Errors are errno values.
type Node interface {
	// Ioctl is ioctl(2); arg points to the structure of the request.
	Ioctl(request uintptr, arg unsafe.Pointer) error
	// Map is mmap(2) of a buffer's plane, shared, to be read. unmap ends it, also after Close.
	Map(offset int64, lengthBytes int) (data []byte, unmap func() error, err error)
	// Wait is poll(2) for a frame, an event, or trouble.
	Wait(timeout time.Duration) (Ready, error)
	// Close is close(2).
	Close() error
}

// Ready is what poll said.
type Ready = uapi.Ready

// ioctl hands v to the kernel.
func ioctl[T any](n Node, request uintptr, v *T) error { return n.Ioctl(request, unsafe.Pointer(v)) }

// file is the node that the kernel gives.
type file struct {
	fd    int
	polls [1]unix.PollFd // here, so that waiting allocates nothing
}

// openFile opens a video device for streaming and says which device number it really is.
func openFile(path string) (Node, uint64, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, 0, &os.PathError{Op: "open", Path: path, Err: errors.Join(unix.ENOTTY, err, unix.Close(fd))}
	}
	return &file{fd: fd}, st.Rdev, nil
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (f *file) Ioctl(request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(arg))
		switch e {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return e
		}
	}
}

func (f *file) Map(offset int64, lengthBytes int) ([]byte, func() error, error) {
	data, err := unix.Mmap(f.fd, offset, lengthBytes, unix.PROT_READ, unix.MAP_SHARED)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) { // some drivers take only writable mappings
		data, err = unix.Mmap(f.fd, offset, lengthBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	return data, func() error { return unix.Munmap(data) }, err
}

func (f *file) Wait(timeout time.Duration) (Ready, error) {
	f.polls[0] = unix.PollFd{Fd: int32(f.fd), Events: unix.POLLIN | unix.POLLPRI}
	_, err := unix.Poll(f.polls[:], int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return Ready{}, err
	}
	got := f.polls[0].Revents
	return Ready{
		Frame: got&unix.POLLIN != 0, Event: got&unix.POLLPRI != 0, Trouble: got&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0,
	}, nil
}

func (f *file) Close() error { return unix.Close(f.fd) }
