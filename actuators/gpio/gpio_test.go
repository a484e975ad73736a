package gpio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// TestLayout: the structures are as large as the numbers of the ioctls say.
func TestLayout(t *testing.T) {
	for name, c := range map[string]struct{ size, number uintptr }{
		"line request": {unsafe.Sizeof(request{}), getLine}, "line values": {unsafe.Sizeof(values{}), setValues},
	} {
		if want := c.number >> 16 & 0x3FFF; c.size != want {
			t.Errorf("%s has %d bytes, the kernel's %d", name, c.size, want)
		}
	}
	if at := unsafe.Offsetof(request{}.flags); at != 288 {
		t.Errorf("flags lie at %d, the kernel's at 288", at)
	}
	if at := unsafe.Offsetof(request{}.fd); at != 588 {
		t.Errorf("the descriptor lies at %d, the kernel's at 588", at)
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	if _, err := Open("/dev/gpiochip-that-is-not", []int{1}, false, "test"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no chip: %v", err)
	}
	if _, err := Open(os.DevNull, []int{1}, false, "test"); err == nil {
		t.Error("a device that is no chip is taken")
	}
	for _, offsets := range [][]int{nil, make([]int, 65), {-1}} {
		if _, err := Open(os.DevNull, offsets, false, "test"); err == nil {
			t.Errorf("lines %v are taken", offsets)
		}
	}
}

// TestSimulatedChip drives a line of the kernel's gpio-sim and reads the level that it has.
func TestSimulatedChip(t *testing.T) {
	const root = "/sys/kernel/config/gpio-sim"
	if _, err := os.Stat(root); err != nil {
		t.Skip("no gpio-sim in this kernel, or configfs is not mounted (modprobe gpio-sim): the character device is not driven")
	}
	dir := filepath.Join(root, "vigil-test")
	bank := filepath.Join(dir, "bank0")
	for _, d := range []string{dir, bank} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Skipf("cannot make a simulated chip: %v", err)
		}
		defer os.Remove(d)
	}
	write := func(path, value string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 && b[len(b)-1] == '\n' {
			b = b[:len(b)-1]
		}
		return string(b)
	}
	write(filepath.Join(bank, "num_lines"), "4")
	write(filepath.Join(dir, "live"), "1")
	defer write(filepath.Join(dir, "live"), "0")
	chip, device := read(filepath.Join(bank, "chip_name")), read(filepath.Join(dir, "dev_name"))
	level := func(line string) string {
		return read(filepath.Join("/sys/devices/platform", device, chip, "sim_gpio"+line, "value"))
	}
	for _, low := range []bool{false, true} {
		l, err := Open("/dev/"+chip, []int{2, 3}, low, "vigil-test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open("/dev/"+chip, []int{3}, low, "other"); err == nil {
			t.Error("a line that is in use is given out")
		}
		for _, on := range []bool{true, false, true} {
			if err := l.Line(1).Set(on); err != nil {
				t.Fatal(err)
			}
			if want := map[bool]string{true: "1", false: "0"}[on != low]; level("3") != want {
				t.Errorf("active low %v, set %v: level %s", low, on, level("3"))
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
