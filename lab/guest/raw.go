package main

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors/v4l2"
)

// What another process would do to a camera, written apart from sensors/v4l2 so that the two check each other.

func rawOpen(pin v4l2.Pin) (int, error) {
	id, err := find(pin)
	if err != nil {
		return -1, err
	}
	return unix.Open(id.Node, unix.O_RDWR|unix.O_CLOEXEC, 0)
}

func rawIoctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// queryCtrl and control as in linux/videodev2.h.
type queryCtrl struct {
	id, kind uint32
	name     [32]byte
	_        [4]int32
	flags    uint32
	_        [2]uint32
}

const (
	vidiocQueryCtrl = 0xc0445624
	vidiocSCtrl     = 0xc008561c
	vidiocReqBufs   = 0xc0145608
	vidiocSFmt      = 0xc0d05605
	vidiocStreamOn  = 0x40045612
	nextCtrl        = 0x80000000
)

// setByName sets a control of the driver, also one that we have no name for.
func setByName(pin v4l2.Pin, name string, value int32) error {
	fd, err := rawOpen(pin)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names []string
	for q := (queryCtrl{id: nextCtrl}); rawIoctl(fd, vidiocQueryCtrl, unsafe.Pointer(&q)) == nil; q.id |= nextCtrl {
		text, _, _ := bytes.Cut(q.name[:], []byte{0})
		names = append(names, string(text))
		if string(text) == name {
			c := [2]uint32{q.id, uint32(value)}
			return rawIoctl(fd, vidiocSCtrl, unsafe.Pointer(&c))
		}
	}
	return fmt.Errorf("the driver has no control %q but %q", name, names)
}

// resetByName sets a control to zero again, behind a case that has its verdict already.
func resetByName(pin v4l2.Pin, name string) {
	if err := setByName(pin, name, 0); err != nil {
		fmt.Printf("guest: %s stays set: %v\n", name, err)
	}
}

// claim takes the buffers of a camera as another process would, until release.
func claim(pin v4l2.Pin) (release func(), err error) {
	fd, err := rawOpen(pin)
	if err != nil {
		return nil, err
	}
	req := [5]uint32{4, 1, 1}
	if err := rawIoctl(fd, vidiocReqBufs, unsafe.Pointer(&req)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return func() { _ = unix.Close(fd) }, nil
}

// usage is what a process can leak, and what the kernel has for all of them.
type usage struct{ files, maps, goroutines, kernelKiB int }

func measure() usage {
	files, _ := filepath.Glob("/proc/self/fd/*") // the same in every call
	maps, _ := os.ReadFile("/proc/self/maps")
	return usage{len(files), strings.Count(string(maps), "/dev/video"), runtime.NumGoroutine(), kernelKiB()}
}

// kernelKiB is what the kernel holds in its slabs and in vmalloc, where vivid and uvcvideo have their buffers.
func kernelKiB() int {
	text, _ := os.ReadFile("/proc/meminfo") // mounted by us
	total := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		name, value, _ := strings.Cut(line, ":")
		var n int
		if _, err := fmt.Sscanf(value, "%d", &n); err == nil && (name == "Slab" || name == "VmallocUsed") {
			total += n
		}
	}
	return total
}

// rawFormat is a struct v4l2_format of the single-planar interface.
func rawFormat(width, height uint32, code string) (f [52]uint32) {
	f[0], f[2], f[3], f[4] = 1, width, height, uint32(code[0])|uint32(code[1])<<8|uint32(code[2])<<16|uint32(code[3])<<24
	return f
}

// inMapping says whether data lies in a mapping of a video device.
func inMapping(data []byte) bool {
	if len(data) == 0 {
		return false
	}
	at := uintptr(unsafe.Pointer(&data[0]))
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		var from, to uintptr
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err == nil && from <= at && at+uintptr(len(data)) <= to {
			return strings.Contains(line, "/dev/video")
		}
	}
	return false
}

// sameMemory maps the descriptor of a buffer, closes it, and compares.
func sameMemory(fd int, data []byte) error {
	other, err := unix.Mmap(fd, 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("cannot map the DMABUF: %w", err)
	}
	defer unix.Munmap(other)
	if !bytes.Equal(data, other) {
		return errors.New("the DMABUF holds something else")
	}
	return nil
}

var seed = maphash.MakeSeed()

func sum(data []byte) uint64 { return maphash.Bytes(seed, data) }
