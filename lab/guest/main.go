// Guest is the first program of the lab's machines: process 1. It mounts what is needed, loads modules, runs the cases of
// its machine, says each outcome on the second serial port, and powers off. Cases run one after another; neighbours that
// may run beside each other do. A case that panics or does not end in time fails the case, not the guest. It owns the
// machine. As another process it is the USB camera.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vigil/lab/result"
)

// order is what the host asks for on the kernel's command line.
type order struct {
	machine string
	each    time.Duration
	cycles  int
	only    string
	tell    func(format string, args ...any) // how far a case is; told to the host once in a while
}

// testCase is one row. run returns its figures.
type testCase struct {
	machine     result.Machine
	suite, name string
	beside      bool // may run at the same time as its neighbours that may, too
	limit       time.Duration
	run         func(o *order) (note string, err error)
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == gadgetProgram {
		beCamera(os.Args[2:])
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is process 1 of the lab's machine; run make lab")
		os.Exit(2)
	}
	defer func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }()
	out, err := prepare()
	if err != nil {
		fmt.Println("guest:", err)
		return
	}
	defer func() { _ = out.Sync() }() // the console is read to its end all the same
	o := readOrder()
	var together sync.WaitGroup
	for _, c := range append(cameraCases(o), usbCases(o)...) {
		if c.machine.Name != o.machine || !strings.Contains(c.suite+" "+c.name, o.only) {
			continue
		}
		if c.beside {
			together.Go(func() { say(out, c.outcome(o, out)) })
			continue
		}
		together.Wait()
		say(out, c.outcome(o, out))
	}
	together.Wait()
	fmt.Fprintln(out, result.Done)
	time.Sleep(200 * time.Millisecond) // the port drains
}

func say(out *os.File, r result.Row) {
	text, _ := json.Marshal(r) // strings and numbers
	fmt.Fprintf(out, "%s%s\n", result.Prefix, text)
}

// outcome runs the case within its limit.
func (c *testCase) outcome(o *order, out *os.File) result.Row {
	r := result.Row{Suite: c.suite, Case: c.name}
	began := time.Now()
	mine := *o
	mine.tell = teller(out, r, max(5*time.Second, o.each/20))
	say(out, result.Row{Suite: c.suite, Case: c.name, Now: true, Note: "begins"})
	type answer struct {
		note string
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- answer{err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
			}
		}()
		note, err := c.run(&mine)
		done <- answer{note, err}
	}()
	select {
	case a := <-done:
		r.Note, r.OK = a.note, a.err == nil
		if a.err != nil {
			r.Note = strings.TrimSpace(a.note + " " + a.err.Error())
		}
	case <-time.After(c.limit):
		r.Note = fmt.Sprintf("no end after %v", c.limit)
		stacks := make([]byte, 64<<10)
		fmt.Printf("%s\n", stacks[:runtime.Stack(stacks, true)]) // on the console
	}
	if n := lostRequests.Swap(0); n > 0 {
		r.Note += fmt.Sprintf("; gadgetfs lost %d requests", n)
	}
	r.Secs = time.Since(began).Seconds()
	return r
}

// teller says how far a case is, once in a while.
func teller(out *os.File, r result.Row, every time.Duration) func(string, ...any) {
	began, last := time.Now(), time.Now()
	return func(format string, args ...any) {
		if time.Since(last) < every {
			return
		}
		last = time.Now()
		r.Now, r.Secs, r.Note = true, time.Since(began).Seconds(), fmt.Sprintf(format, args...)
		say(out, r)
	}
}

// prepare mounts, loads and opens the port.
func prepare() (*os.File, error) {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return nil, fmt.Errorf("cannot mount %s: %w", m.at, err)
		}
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile("/modules")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := load(name, parameters[name]); err != nil {
			fmt.Fprintf(out, "module %s: %v\n", name, err)
		}
	}
	return out, nil
}

// parameters of modules.
var parameters = map[string]string{"vivid": vividParameters}

func load(name, args string) error {
	f, err := os.Open("/lib/" + name + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), args, 0)
}

func readOrder() *order {
	o := &order{each: 5 * time.Second, cycles: 100}
	line, _ := os.ReadFile("/proc/cmdline") // defaults otherwise
	for _, word := range strings.Fields(string(line)) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "lab.machine":
			o.machine = value
		case "lab.time":
			if d, err := time.ParseDuration(value); err == nil {
				o.each = d
			}
		case "lab.cycles":
			if n, err := strconv.Atoi(value); err == nil {
				o.cycles = n
			}
		case "lab.only":
			o.only = strings.ReplaceAll(value, "+", " ")
		}
	}
	return o
}
