package bus

import (
	"sync/atomic"
	"unsafe"
)

// word is the 64-bit number at an offset of the mapping, for atomic access by several processes. The mapping begins on a
// page, so a multiple of 8 is aligned; anything else is a mistake in this package.
func word(b []byte, offset int) *uint64 {
	if offset%8 != 0 {
		panic("bus: a word that is not aligned")
	}
	return (*uint64)(unsafe.Pointer(&b[offset : offset+8][0]))
}

// begin marks a slot as being written. The load behind the store keeps what is written next from becoming visible before
// the mark: on ARM a store-release followed by a load-acquire is ordered, and so is everything behind the latter.
func begin(lock *uint64, ticket uint64) {
	atomic.StoreUint64(lock, 2*ticket-1)
	atomic.LoadUint64(lock)
}

// finish marks a slot as whole.
func finish(lock *uint64, ticket uint64) { atomic.StoreUint64(lock, 2*ticket) }
