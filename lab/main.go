// Lab runs what needs a machine of its own: it makes a guest of Debian's kernel and our static programs, boots it in QEMU,
// as several machines where cases can run beside each other, lets each run its cases, and prints a table; how far they are
// goes to standard error. It promises an end within its time limit and leaves no process and no file but the kept parts in
// .cache/lab. It owns the QEMU processes and blocks on them.
//
// The parts are few, so that more can be added: an image is a list of files (image.go), a machine is an image with devices
// (machine.go), and what happens inside is a case of the guest (lab/guest). A TPM, a broker or a power cut is one more
// device or one more suite.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"vigil/lab/result"
)

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".cache/lab/root", "unpacked kernel package (scripts/lab makes it)")
	flag.StringVar(&o.accel, "accel", "", "kvm or tcg; empty tries kvm, then tcg")
	flag.StringVar(&o.only, "only", "", "run only cases whose name contains this")
	flag.StringVar(&o.machines, "machines", "", "boot only machines whose name begins with this: camera, usb, usb-mjpeg, ...")
	flag.DurationVar(&o.each, "time", 5*time.Second, "how long every format streams")
	flag.IntVar(&o.cycles, "cycles", 100, "unplug and replug cycles")
	flag.DurationVar(&o.limit, "limit", 0, "time limit of a machine; 0 computes it from -time and -cycles")
	flag.BoolVar(&o.json, "json", false, "print the rows as JSON lines")
	flag.BoolVar(&o.verbose, "v", false, "print what the guest says beside its rows")
	flag.Parse()
	if o.limit == 0 {
		o.limit = o.each + time.Duration(o.cycles)*20*time.Second + 20*time.Minute // more than all cases of a machine together
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

type options struct {
	root, accel, only, machines string
	each, limit                 time.Duration
	cycles                      int
	json, verbose               bool
}

func run(ctx context.Context, o *options) error {
	kernels, _ := filepath.Glob(filepath.Join(o.root, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		return fmt.Errorf("no kernel in %s: run scripts/lab first", o.root)
	}
	dir, err := os.MkdirTemp(filepath.Dir(o.root), "run.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	guest := filepath.Join(dir, "guest")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", guest, "./lab/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("cannot build the guest's program: %w", err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := writeImage(initrd, guest, o.root, guestModules); err != nil {
		return fmt.Errorf("cannot make the image: %w", err)
	}
	t := newTable(o)
	accels := []string{o.accel}
	if o.accel == "" {
		accels = accelerators()
	}
	for _, step := range result.Steps {
		if err := runStep(ctx, o, t, &accels, step, machine{kernel: kernels[0], initrd: initrd, dir: dir}); err != nil {
			return err
		}
	}
	return t.verdict()
}

// runStep runs machines beside each other, each of which is a like with another name. Their errors do not keep the next
// step from running, and are in the verdict; an end of the whole run is returned.
func runStep(ctx context.Context, o *options, t *table, accels *[]string, step []result.Machine, like machine) error {
	var all sync.WaitGroup
	for _, s := range step {
		if !strings.HasPrefix(s.Name, o.machines) {
			continue
		}
		m := like
		m.name, m.cpus = s.Name, s.CPUs
		m.args = fmt.Sprintf("lab.machine=%s lab.time=%s lab.cycles=%d lab.only=%s", s.Name, o.each, o.cycles, strings.ReplaceAll(o.only, " ", "+"))
		boot := func() {
			ctx, cancel := context.WithTimeout(ctx, o.limit)
			defer cancel()
			if err := m.run(ctx, t, accels); err != nil {
				t.fail(fmt.Errorf("machine %s: %w", m.name, err))
			}
		}
		if len(*accels) > 1 {
			boot() // alone: it finds the accelerator
			continue
		}
		all.Go(boot)
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return errors.Join(errors.New("interrupted"), t.verdict())
	}
	return nil
}
