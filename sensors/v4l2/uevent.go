package v4l2

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// uevent is what the kernel says of a device.
type uevent struct {
	action    string // add, remove, change, ...
	devPath   string // below /sys
	subsystem string
}

// maxUevent bounds a message; the kernel's own limit is 2048 bytes of variables and a path (lib/kobject_uevent.c).
const maxUevent = 16 << 10

// parseUevent reads a message: "ACTION@DEVPATH", then KEY=VALUE, each ended by a zero byte. udev's own messages, which
// begin with "libudev", and everything else are not ok.
func parseUevent(msg []byte) (e uevent, ok bool) {
	head, rest, _ := bytes.Cut(msg, []byte{0})
	action, path, ok := bytes.Cut(head, []byte{'@'})
	if !ok || len(action) == 0 || len(path) == 0 || path[0] != '/' {
		return uevent{}, false
	}
	e = uevent{action: string(action), devPath: string(path)}
	for len(rest) > 0 {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte{0})
		if value, ok := bytes.CutPrefix(field, []byte("SUBSYSTEM=")); ok {
			e.subsystem = string(value)
		}
	}
	return e, true
}

// watcher listens to uevents. Where the kernel does not let it (a container), it hears nothing, and whoever waits looks
// again when the time is over.
type watcher struct {
	fd    int // -1 without
	buf   []byte
	polls [1]unix.PollFd // here, so that waiting allocates nothing
}

// kernelGroup is the multicast group of the kernel's own messages; udev's has another.
const kernelGroup = 1

func newWatcher() *watcher {
	w := &watcher{fd: -1, buf: make([]byte, maxUevent)}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return w
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		_ = unix.Close(fd) // nothing was sent over it
		return w
	}
	w.fd = fd
	return w
}

// wait blocks until the kernel tells of a video device, or the time is over.
func (w *watcher) wait(timeout time.Duration) {
	if w.fd < 0 {
		time.Sleep(timeout)
		return
	}
	end := time.Now().Add(timeout)
	for left := timeout; left > 0; left = time.Until(end) {
		if !w.poll(left) {
			continue
		}
		if video, _ := w.drain(""); video {
			return
		}
	}
}

func (w *watcher) poll(timeout time.Duration) bool {
	w.polls[0] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN}
	n, err := unix.Poll(w.polls[:], int((timeout+time.Millisecond-1)/time.Millisecond))
	return n > 0 && err == nil
}

// drain takes what is there and says whether any of it is about video devices, and whether the one at watched, a path
// below /sys, was removed.
func (w *watcher) drain(watched string) (video, removed bool) {
	for w.fd >= 0 && w.poll(0) {
		n, from, err := unix.Recvfrom(w.fd, w.buf, 0)
		if errors.Is(err, unix.ENOBUFS) {
			video = true // messages were lost: look
			continue
		}
		if err != nil {
			return video, removed
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // not the kernel
		}
		if e, ok := parseUevent(w.buf[:n]); ok && e.subsystem == "video4linux" {
			video = true
			removed = removed || e.action == "remove" && e.devPath == watched
		}
	}
	return video, removed
}

func (w *watcher) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd) // a socket that only listened
		w.fd = -1
	}
}
