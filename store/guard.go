package store

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// guarded runs f and turns a panic or memory fault that comes out of bbolt into
// an error that matches ErrCorrupt: bbolt trusts the pages it has mapped and
// panics, or reads past the end of the file, when they are damaged. Panics of
// anybody else pass through. cleanup runs after either kind and is told which.
func guarded(path string, f func() error, cleanup func(inBolt bool)) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	finished := false
	defer func() {
		if finished {
			return
		}
		if !panickedInBolt() {
			cleanup(false)
			return
		}
		r := recover()
		cleanup(true)
		err = fmt.Errorf("cannot read %s: its pages are damaged (%v); run vigild check, and restore it from a backup: %w", path, r, ErrCorrupt)
	}()
	err = f()
	finished = true
	return err
}

// panickedInBolt says whether the panic that is under way began in bbolt. It is
// to be called by a deferred function.
func panickedInBolt() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	panicking := false
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == "runtime.gopanic":
			panicking = true
		case panicking && !strings.HasPrefix(frame.Function, "runtime."):
			return strings.HasPrefix(frame.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}
