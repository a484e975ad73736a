package api

import (
	"fmt"
	"io"
	"sync"
)

// memoryBytes bounds what the bodies of all requests may take together. A body costs what has arrived of it, JSON twice that:
// the text and what is decoded of it.
const memoryBytes = 256 << 20

// budget is memory that requests share.
type budget struct {
	mu   sync.Mutex
	free int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free {
		return false
	}
	b.free -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
}

// charged is a body that pays for what it gives out, until settle.
type charged struct {
	io.ReadCloser
	from   *budget
	factor int64
	paid   int64
}

// Read implements io.Reader. Errors: errOverloaded when the memory is spent.
func (c *charged) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if cost := int64(n) * c.factor; cost > 0 {
		if !c.from.take(cost) {
			return 0, fmt.Errorf("%w: other requests hold the memory for bodies", errOverloaded)
		}
		c.paid += cost
	}
	return n, err
}

// settle gives the memory back.
func (c *charged) settle() {
	c.from.give(c.paid)
	c.paid = 0
}

// Buffers for raw bodies that are kept for the next request: no more than a few, and none of the size that is rare.
const (
	keptBuffers     = 4
	keptBufferBytes = 8 << 20
	firstBytes      = 256 << 10
)

// buffers lends memory for raw bodies. What comes back is overwritten: nobody's picture stays in it.
type buffers struct{ free chan []byte }

func newBuffers() *buffers { return &buffers{make(chan []byte, keptBuffers)} }

// get returns an empty buffer.
func (b *buffers) get() []byte {
	select {
	case buf := <-b.free:
		return buf[:0]
	default:
		return nil
	}
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	buf = buf[:cap(buf)]
	clear(buf)
	if len(buf) == 0 || len(buf) > keptBufferBytes {
		return
	}
	select {
	case b.free <- buf:
	default:
	}
}

// readAll reads a body into buf, which grows with what has arrived, not with what was announced. want is the announced size,
// -1 for none.
func readAll(r io.Reader, buf []byte, want int64) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			size := max(2*cap(buf), firstBytes)
			if want >= int64(cap(buf)) && want < int64(size) {
				size = int(want) + 1 // one more, so that the end is seen without growing again
			}
			bigger := make([]byte, len(buf), size)
			copy(bigger, buf)
			clear(buf)
			buf = bigger
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF { //nolint:errorlint // a reader gives this very value
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}
