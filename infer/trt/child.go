package trt

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// RunChild is the work of a build child: it reads one order and one model, builds, and answers on out. It writes no file,
// and sees to it that none is written of it: a core would hold no memory. When memory runs short the kernel takes it first. When
// in ends before the work is done, the parent is gone, and orphaned is called, which should end the process. An error that
// it returns was not told to the parent.
func RunChild(in io.Reader, out io.Writer, orphaned func()) error {
	// Not PR_SET_DUMPABLE: the parent could not see then how much memory the child takes, where proc is mounted with hidepid.
	if err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0); err != nil {
		return fmt.Errorf("cannot keep the model out of core dumps: %w", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return fmt.Errorf("cannot offer this process to the kernel when memory runs short: %w", err)
	}
	o, model, err := readOrder(in)
	if err != nil {
		return err
	}
	if err := o.limit(unix.Setrlimit); err != nil {
		return err
	}
	w := &answers{w: bufio.NewWriterSize(out, 16)} // headers and small frames; pieces pass it by
	go func() {
		if _, err := io.Copy(io.Discard, in); err == nil && !w.last.Load() {
			orphaned()
		}
	}()
	err = buildHere(o, model, w.step, w.built)
	if err != nil && w.err == nil {
		w.last.Store(true)
		text := err.Error()
		err = w.send(frameFailed, []byte(text[:min(len(text), jsonBytes)]))
	}
	return errors.Join(w.err, err)
}

// readOrder reads what the parent wants.
func readOrder(in io.Reader) (o Order, model []byte, err error) {
	kind, n, err := readHead(in)
	if err != nil || kind != frameOrder {
		return o, nil, fmt.Errorf("no order: %w", errors.Join(err, errWire))
	}
	data, err := readPayload(in, n)
	if err != nil {
		return o, nil, err
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return o, nil, fmt.Errorf("%w: %v", errWire, err)
	}
	if kind, n, err = readHead(in); err != nil || kind != frameModel {
		return o, nil, fmt.Errorf("no model: %w", errors.Join(err, errWire))
	}
	model, err = readPayload(in, n)
	return o, model, err
}

// limit bounds this process. RLIMIT_AS would count the address space that a CUDA driver and Go reserve, which is more than
// any machine has; RLIMIT_DATA counts private memory that can be written, so that an allocation beyond it fails. What the
// process has by now does not count. The parent watches the resident memory as well.
//
// Where a filter of system calls forbids limits (EPERM), as the unit of vigild does, the parent's watch and the unit's own
// limits are what there is.
func (o Order) limit(setrlimit func(what int, limit *unix.Rlimit) error) error {
	set := func(what int, value int64) error {
		err := setrlimit(what, &unix.Rlimit{Cur: uint64(value), Max: uint64(value)})
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("the build child cannot limit itself: %w", err)
		}
		return nil
	}
	err := set(unix.RLIMIT_CORE, 0)
	if o.MemoryBytes > 0 {
		err = errors.Join(err, set(unix.RLIMIT_DATA, o.MemoryBytes+statusBytes("/proc/self/status", "VmData:")))
	}
	if o.CPUSeconds > 0 {
		err = errors.Join(err, set(unix.RLIMIT_CPU, o.CPUSeconds))
	}
	return err
}

// answers writes to the parent. The library reports progress from threads of its own.
type answers struct {
	mu   sync.Mutex
	w    *bufio.Writer
	err  error       // the first: from then on nothing is written
	last atomic.Bool // the last word is said: the parent may go
}

func (a *answers) send(kind byte, payload []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = writeFrame(a.w, kind, payload)
	}
	if a.err == nil {
		a.err = a.w.Flush()
	}
	return a.err
}

func (a *answers) step(s Step) {
	data, err := json.Marshal(s)
	if err == nil && len(data) <= jsonBytes {
		_ = a.send(frameStep, data) // kept in a.err
	}
}

// built sends the engine.
func (a *answers) built(b Built, engine []byte) error {
	if err := a.send(frameSize, binary.BigEndian.AppendUint64(nil, uint64(len(engine)))); err != nil {
		return err
	}
	for len(engine) > 0 {
		n := min(len(engine), pieceBytes)
		if err := a.send(framePiece, engine[:n]); err != nil {
			return err
		}
		engine = engine[n:]
	}
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	a.last.Store(true)
	return a.send(frameBuilt, data)
}

// Resident is the memory of a process that is resident and its own, in bytes; 0 if it is gone.
func Resident(pid int) int64 { return statusBytes(fmt.Sprintf("/proc/%d/status", pid), "RssAnon:") }

func statusBytes(path, key string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, key); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
