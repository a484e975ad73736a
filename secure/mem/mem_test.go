package mem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// noLeak fails the test when it ends with more open buffers than it began with.
func noLeak(t *testing.T) {
	t.Helper()
	buffers, bytes := Live()
	files, _ := os.ReadDir("/proc/self/fd")
	t.Cleanup(func() {
		if now, _ := os.ReadDir("/proc/self/fd"); len(now) != len(files) {
			t.Errorf("%d files are open, before the test it were %d", len(now), len(files))
		}
		if b, n := Live(); b != buffers || n != bytes {
			t.Errorf("%d buffers (%d bytes) are open, before the test it were %d (%d)", b, n, buffers, bytes)
		}
	})
}

func TestNew(t *testing.T) {
	noLeak(t)
	page := os.Getpagesize()
	for _, size := range []int{1, 32, page - 1, page, page + 1, 5 * page} {
		b, err := New(size)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if b.Len() != size || len(b.Bytes()) != size || cap(b.Bytes()) != size {
			t.Errorf("%d bytes: got Len %d, len %d, cap %d", size, b.Len(), len(b.Bytes()), cap(b.Bytes()))
		}
		if !bytes.Equal(b.Bytes(), make([]byte, size)) {
			t.Errorf("%d bytes: not zeroed", size)
		}
		b.Bytes()[size-1] = 0xA5
		if b.Bytes()[size-1] != 0xA5 {
			t.Errorf("%d bytes: does not hold what was written", size)
		}
		if err := errors.Join(b.Close(), b.Close()); err != nil {
			t.Errorf("%d bytes: close: %v", size, err)
		}
		if b.Bytes() != nil || b.Len() != 0 {
			t.Errorf("%d bytes: readable after Close", size)
		}
	}
	for _, size := range []int{0, -1, int(^uint(0) >> 1)} {
		if b, err := New(size); err == nil {
			b.Close()
			t.Errorf("%d bytes: no error", size)
		}
	}
}

func TestZeroValueIsClosed(t *testing.T) {
	var none *Buffer
	for _, b := range []*Buffer{none, {}} {
		if b.Bytes() != nil || b.Len() != 0 || b.Close() != nil || b.Equal(b) {
			t.Error("a zero buffer is not a closed one")
		}
	}
}

func TestFromBytesMoves(t *testing.T) {
	noLeak(t)
	src := []byte("the quick brown fox")
	b, err := FromBytes(src)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if string(b.Bytes()) != "the quick brown fox" {
		t.Errorf("got %q", b.Bytes())
	}
	if !bytes.Equal(src, make([]byte, len(src))) {
		t.Error("the source was not zeroed")
	}
	if _, err := FromBytes(nil); err == nil {
		t.Error("no error for an empty source")
	}
}

func TestEqual(t *testing.T) {
	noLeak(t)
	open := func(s string) *Buffer {
		b, err := FromBytes([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	closed := open("aaaa")
	closed.Close()
	for _, c := range []struct {
		x, y *Buffer
		want bool
	}{
		{open("aaaa"), open("aaaa"), true},
		{open("aaaa"), open("aaab"), false},
		{open("aaaa"), open("aaa"), false},
		{open("aaaa"), closed, false},
		{closed, closed, false},
	} {
		if got := c.x.Equal(c.y); got != c.want {
			t.Errorf("got %v, want %v", got, c.want)
		}
	}
}

// TestPages asserts what the kernel says of the mapping: locked, not dumped,
// not inherited.
func TestPages(t *testing.T) {
	noLeak(t)
	for name, alloc := range map[string]func(int) ([]byte, error){Backend(): lockedPages, BackendMlock: mlockPages} {
		t.Run(name, func(t *testing.T) {
			mapping, err := alloc(os.Getpagesize())
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(mapping)
			flags := vmFlags(t, mapping)
			for _, f := range []string{"lo", "dd", "dc"} {
				if !strings.Contains(flags, " "+f+" ") {
					t.Errorf("flag %q is missing in %q", f, flags)
				}
			}
		})
	}
}

// vmFlags finds the VmFlags line of the mapping in /proc/self/smaps.
func vmFlags(t *testing.T, mapping []byte) string {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no /proc/self/smaps")
	}
	start, _ := strconv.ParseUint(fmt.Sprintf("%p", mapping)[2:], 16, 64)
	found := false
	for line := range strings.Lines(string(smaps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			found = from <= start && start < to
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && found {
			return strings.TrimRight(flags, "\n") + " "
		}
	}
	t.Fatal("mapping is not in /proc/self/smaps")
	return ""
}

// TestLimit runs itself with a small RLIMIT_MEMLOCK.
func TestLimit(t *testing.T) {
	if os.Getenv("MEM_TEST_LIMIT") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLimit$", "-test.v")
		cmd.Env = append(os.Environ(), "MEM_TEST_LIMIT=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if bytes.Contains(out, []byte("SKIP")) {
			t.Skip("the limit does not bind this user (CAP_IPC_LOCK)")
		}
		return
	}
	dropLockCapability(t)
	limit := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	for name, alloc := range map[string]func(int) ([]byte, error){"New": lockedPages, "mlock": mlockPages} {
		_, err := alloc(1 << 20)
		if !errors.Is(err, ErrLimit) || !strings.Contains(fmt.Sprint(err), "LimitMEMLOCK=") || !strings.Contains(fmt.Sprint(err), "65536 bytes") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if b, n := Live(); b != 0 || n != 0 {
		t.Errorf("failed allocations are counted: %d, %d bytes", b, n)
	}
}

// dropLockCapability makes the limit bind a test that runs as root. It must be
// the thread that allocates, and this process ends after the test.
func dropLockCapability(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	runtime.LockOSThread()
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

func TestPrintsAsSecret(t *testing.T) {
	noLeak(t)
	const content = "hunter2-hunter2!"
	b, err := FromBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	type holder struct {
		Pointer *Buffer
		Value   Buffer
		hidden  *Buffer
		inside  Buffer
	}
	h := holder{b, *b, b, *b}
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%t", "%e"} {
		one := fmt.Sprintf(verb, b)
		if one != Redacted {
			t.Errorf("%s prints %q", verb, one)
		}
		out = append(out, fmt.Sprintf(verb, *b), fmt.Sprintf(verb, struct{ b **Buffer }{&b}), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, []any{b, *b}))
	}
	encoded, err := json.Marshal(h)
	if err != nil || strings.Count(string(encoded), Redacted) != 2 {
		t.Errorf("JSON is %s (%v)", encoded, err)
	}
	text, _ := b.MarshalText()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", b, "value", *b, "holder", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", b, "value", *b, "holder", h)
	out = append(out, string(encoded), string(text), log.String(), fmt.Sprint(errors.New(b.String())))
	for _, s := range out {
		for _, leak := range []string{content, content[:8], fmt.Sprintf("%x", content[:8]), fmt.Sprintf("%X", content[:8]), "104 117 110"} {
			if strings.Contains(s, leak) {
				t.Errorf("leaks %q: %.200s", leak, s)
			}
		}
	}
}

func TestZero(t *testing.T) {
	b := []byte{1, 2, 3}
	Zero(b)
	if !bytes.Equal(b, make([]byte, 3)) {
		t.Errorf("got %v", b)
	}
	Zero(nil)
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		buf, err := New(32)
		if err != nil {
			b.Fatal(err)
		}
		buf.Close()
	}
}

func TestInt8sIsTheSameMemory(t *testing.T) {
	b, err := New(4096)
	if err != nil {
		t.Fatal(err)
	}
	b.Int8s()[5] = -1
	if b.Bytes()[5] != 0xff || len(b.Int8s()) != b.Len() {
		t.Error("Int8s is not the memory of Bytes")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Int8s() != nil {
		t.Error("Int8s after Close must be nil")
	}
}
