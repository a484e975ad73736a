package mem

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrLimit is returned by New and FromBytes when the kernel refuses to lock
// the memory because of RLIMIT_MEMLOCK.
var ErrLimit = errors.New("locked memory limit reached")

// Names that Backend returns.
const (
	BackendSecret = "memfd_secret"
	BackendMlock  = "mlock"
)

// live counts what New made and Close has not yet released. It exists for leak
// tests and metrics only; nothing is decided by it.
var live struct {
	buffers, bytes atomic.Int64
}

// Live reports how many buffers are open in this process and how many bytes of
// locked memory (whole pages) they hold.
func Live() (buffers, bytes int64) {
	return live.buffers.Load(), live.bytes.Load()
}

// Buffer is one piece of locked memory. It is made by New or FromBytes; its
// zero value is a closed buffer. Every way of printing, logging or marshalling
// it yields "[secret]". Copies of a Buffer share the same memory.
type Buffer struct {
	// A function hides the memory from package fmt, which follows a pointer in
	// an unexported field when the verb does not suit it. It also makes buffers
	// incomparable with ==; use Equal.
	get func() *region
}

// region is what copies of a Buffer share.
type region struct {
	mu      sync.Mutex
	mapping []byte // whole pages, nil once closed
	size    int    // bytes that were asked for
}

// New returns a zeroed buffer of sizeBytes bytes, aligned to a page. It fails
// with an error that matches ErrLimit when the memory cannot be locked, and
// when sizeBytes is not positive.
func New(sizeBytes int) (*Buffer, error) {
	if sizeBytes <= 0 {
		return nil, fmt.Errorf("cannot allocate %d bytes of locked memory: the size must be positive", sizeBytes)
	}
	page := os.Getpagesize()
	if sizeBytes > int(^uint(0)>>1)-page {
		return nil, fmt.Errorf("cannot allocate %d bytes of locked memory: the size is out of range", sizeBytes)
	}
	mapping, err := lockedPages((sizeBytes + page - 1) / page * page)
	if err != nil {
		return nil, err
	}
	live.buffers.Add(1)
	live.bytes.Add(int64(len(mapping)))
	r := &region{mapping: mapping, size: sizeBytes}
	return &Buffer{get: func() *region { return r }}, nil
}

// FromBytes moves src into a new buffer: it copies src, then zeroes it, also
// when it fails.
func FromBytes(src []byte) (*Buffer, error) {
	defer Zero(src)
	b, err := New(len(src))
	if err != nil {
		return nil, err
	}
	copy(b.Bytes(), src)
	return b, nil
}

// Bytes returns the buffer's memory, Len bytes long, or nil after Close. The
// slice is the memory itself: it must not outlive the buffer.
func (b *Buffer) Bytes() []byte {
	if b == nil || b.get == nil {
		return nil
	}
	r := b.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mapping == nil {
		return nil
	}
	return r.mapping[:r.size:r.size]
}

// Len returns the size in bytes that was asked for, or 0 after Close.
func (b *Buffer) Len() int { return len(b.Bytes()) }

// Close zeroes and unmaps the memory. Closing twice is harmless. The caller
// must know that nobody still reads the slice that Bytes gave.
func (b *Buffer) Close() error {
	if b == nil || b.get == nil {
		return nil
	}
	r := b.get()
	r.mu.Lock()
	defer r.mu.Unlock()
	mapping := r.mapping
	if mapping == nil {
		return nil
	}
	r.mapping = nil
	Zero(mapping)
	live.buffers.Add(-1)
	live.bytes.Add(-int64(len(mapping)))
	if err := unix.Munmap(mapping); err != nil {
		return fmt.Errorf("cannot unmap locked memory: %v", err)
	}
	return nil
}

// Equal compares two buffers in time that depends on their lengths only. A
// closed buffer equals nothing, not even another closed one.
func (b *Buffer) Equal(other *Buffer) bool {
	x, y := b.Bytes(), other.Bytes()
	return x != nil && y != nil && subtle.ConstantTimeCompare(x, y) == 1
}

// Zero overwrites b with zeros in a way the compiler keeps.
//
//go:noinline
func Zero(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
