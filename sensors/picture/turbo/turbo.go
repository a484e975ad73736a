// Package turbo decodes JPEG with libjpeg-turbo where the machine has it (Debian: libturbojpeg0): three times as fast as Go's
// decoder.
//
// Promises: the library is looked for once, by name, and nothing fails without it. A picture that it does not decode without
// the least complaint is left to the caller, who has another decoder to say what is wrong. Chroma is repeated, not smoothed,
// so that pixels differ from those of Go's decoder by rounding alone. Decode blocks for the work and keeps nothing.
package turbo

/*
#cgo CFLAGS: -O2 -Wall -Wextra
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "turbo.h"
*/
import "C"

import (
	"sync"
	"unsafe"
)

// library is the name that every version since 1.2 has.
const library = "libturbojpeg.so.0"

// Available reports whether the library is there.
var Available = sync.OnceValue(func() bool {
	name := C.CString(library)
	defer C.free(unsafe.Pointer(name))
	return C.vigil_turbo_open(name) != 0
})

// Decode writes a JPEG of w x h pixels into dst as RGB24, 3*w bytes a row. It reports false, with dst in any state, if the
// library is not there, the size is another, or the picture is damaged or of a kind that it does not take.
func Decode(dst []byte, w, h int, data []byte) bool {
	if w <= 0 || h <= 0 || len(dst) < 3*w*h || len(data) == 0 || !Available() {
		return false
	}
	return C.vigil_turbo_decode((*C.uchar)(&dst[0]), C.int(w), C.int(h), (*C.uchar)(&data[0]), C.ulong(len(data))) != 0
}
