package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// machine is a guest: kernel, image, and the devices it has. The first serial port is the console, kept in a file; the
// second carries the rows.
type machine struct {
	name                string
	kernel, initrd, dir string
	cpus                int
	args                string // of the kernel's command line, for the guest
	extra               []string
}

func (m *machine) command(ctx context.Context, accel string) *exec.Cmd {
	cpu := "max"
	if accel == "kvm" {
		cpu = "host"
	}
	args := []string{
		"-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(m.cpus), "-m", "768", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.kernel, "-initrd", m.initrd, "-serial", "file:" + m.console(), "-serial", "stdio",
		"-append", "console=ttyS0 loglevel=5 panic=-1 " + guestEnv + " " + m.args,
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, m.extra...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// guestEnv becomes the environment of process 1. A signal for preemption would interrupt a write of the gadget, and spoil a
// picture.
const guestEnv = "GODEBUG=asyncpreemptoff=1"

func (m *machine) console() string { return filepath.Join(m.dir, "console-"+m.name) }

// patience is how long a machine may take to say its first word: on some hosts /dev/kvm is there but never runs anything.
// An emulated one is only slow, the more so beside others.
func patience(accel string) time.Duration {
	if accel == "kvm" {
		return 15 * time.Second
	}
	return 3 * time.Minute
}

// run boots the machine and collects its rows. The first machine of all finds out which accelerator works.
func (m *machine) run(ctx context.Context, t *table, accels *[]string) error {
	for {
		accel := (*accels)[0]
		t.progress("%s boots %s with %s, %d CPU", m.name, filepath.Base(m.kernel), accel, m.cpus)
		err := m.boot(ctx, accel, t)
		if len(*accels) == 1 || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, errMute) {
			*accels = (*accels)[:1]
			return err
		}
		t.progress("%s does not run anything here (%v)", accel, err)
		*accels = (*accels)[1:]
	}
}

// accelerators to try: KVM where its device can be opened, which says little.
func accelerators() []string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return []string{"tcg"}
	}
	_ = f.Close() // it was only a look
	return []string{"kvm", "tcg"}
}

var errMute = errors.New("the kernel says nothing")

func (m *machine) boot(ctx context.Context, accel string, t *table) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = os.Remove(m.console()) // of the try before
	cmd := m.command(ctx, accel)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	mute := make(chan bool, 1)
	go func() { mute <- m.waitMute(ctx, patience(accel)); cancelIf(mute, cancel) }()
	err = t.collect(bufio.NewScanner(out))
	if err == nil {
		time.AfterFunc(10*time.Second, cancel) // it powers off by itself
	} else {
		cancel()
	}
	_, _ = io.Copy(io.Discard, out) // to the end, so that the process can go
	_ = cmd.Wait()                  // it was killed, or powered off; what counts is what it said
	cancel()
	if <-mute || err != nil && !m.spoke() {
		return fmt.Errorf("%w %s", errMute, strings.TrimSpace(stderr.String()))
	}
	if err != nil {
		return fmt.Errorf("%w\n%s%s", err, stderr.String(), m.tail())
	}
	return nil
}

// cancelIf ends the machine if it is mute, and leaves the answer for boot.
func cancelIf(mute chan bool, cancel func()) {
	answer := <-mute
	if answer {
		cancel()
	}
	mute <- answer
}

// waitMute says whether the console stayed empty for that long.
func (m *machine) waitMute(ctx context.Context, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if m.spoke() {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return true
}

// spoke says whether the kernel wrote anything.
func (m *machine) spoke() bool {
	st, err := os.Stat(m.console())
	return err == nil && st.Size() > 0
}

// tail is the end of the console.
func (m *machine) tail() string {
	text, err := os.ReadFile(m.console())
	if err != nil {
		return ""
	}
	return "console:\n" + string(text[max(0, len(text)-4000):])
}
