package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that was started, with all that it started.
type process struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan error
}

// launch starts a server as a process group of its own.
func launch(env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), ended: make(chan error, 1)} //nolint:noctx // stop ends it in order
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// ready waits until ask succeeds.
func (p *process) ready(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case e := <-p.ended:
			return fmt.Errorf("%s ended: %w\n%s", p.cmd.Path, e, p.log.Bytes())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", p.cmd.Path, err, p.log.Bytes())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop asks the server to end, and ends it and all that it started after a while.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// memory is what the server and its children hold: the sum of their proportional shares, in bytes.
func (p *process) memory() int64 {
	var sum int64
	for _, pid := range family(p.cmd.Process.Pid) {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if err != nil {
			continue // it ended meanwhile
		}
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}

// family is a process and all below it.
func family(pid int) []int {
	list := []int{pid}
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		return list
	}
	for _, t := range tasks {
		data, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		for _, word := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(word); err == nil {
				list = append(list, family(child)...)
			}
		}
	}
	return list
}

// usage is what a server took while it was watched.
type usage struct {
	memoryBytes int64   // the largest
	cpuSeconds  float64 // of all its processors together
}

// watch measures until stop is called.
func (p *process) watch() (stop func() usage) {
	done, most := make(chan struct{}), make(chan int64)
	begin := p.cpuSeconds()
	go func() {
		largest := p.memory()
		for {
			select {
			case <-done:
				most <- max(largest, p.memory())
				return
			case <-time.After(500 * time.Millisecond):
				largest = max(largest, p.memory())
			}
		}
	}()
	return func() usage {
		cpu := p.cpuSeconds() - begin
		close(done)
		return usage{<-most, cpu}
	}
}

// ticks of a second in /proc: USER_HZ, which Linux fixes at 100 (proc(5)).
const ticks = 100

// cpuSeconds is what the server and its children have used so far, in user and kernel mode.
func (p *process) cpuSeconds() (seconds float64) {
	for _, pid := range family(p.cmd.Process.Pid) {
		data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ") // the name may hold spaces
		if fields := strings.Fields(rest); len(fields) > 12 {
			for _, f := range fields[11:13] { // utime, stime
				n, _ := strconv.ParseFloat(f, 64)
				seconds += n / ticks
			}
		}
	}
	return seconds
}
