package mem

import "unsafe"

// Int8s returns the memory of the Buffer as signed values, as templates are; the same rules hold as for Bytes. After
// Close it is nil.
func (b *Buffer) Int8s() []int8 {
	bytes := b.Bytes()
	if len(bytes) == 0 {
		return nil
	}
	return unsafe.Slice((*int8)(unsafe.Pointer(&bytes[0])), len(bytes))
}
