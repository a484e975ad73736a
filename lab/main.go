// Lab runs what needs a machine of its own: it makes a guest of Debian's kernel and our static programs, boots it in QEMU,
// lets it run its suites, and prints a table. It promises an end within its time limit and leaves no process and no file
// but the kept parts in .cache/lab. It owns the QEMU process and blocks on it.
//
// The parts are few, so that more can be added: an image is a list of files (image.go), a machine is an image with devices
// (machine.go), and what happens inside is a suite of the guest (lab/guest). A TPM, a broker or a power cut is one more
// device or one more suite.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vigil/lab/result"
)

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".cache/lab/root", "unpacked kernel package (scripts/lab makes it)")
	flag.StringVar(&o.accel, "accel", "", "kvm or tcg; empty tries kvm, then tcg")
	flag.StringVar(&o.only, "only", "", "run only cases whose name contains this")
	flag.DurationVar(&o.each, "time", 5*time.Second, "how long every format streams")
	flag.IntVar(&o.cycles, "cycles", 100, "unplug and replug cycles")
	flag.DurationVar(&o.limit, "limit", 0, "time limit; 0 computes it from the others")
	flag.BoolVar(&o.json, "json", false, "print the rows as JSON lines")
	flag.BoolVar(&o.verbose, "v", false, "print what the guest says beside its rows")
	flag.Parse()
	if o.limit == 0 {
		o.limit = 10*o.each + time.Duration(o.cycles)*6*time.Second + 5*time.Minute
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

type options struct {
	root, accel, only string
	each, limit       time.Duration
	cycles            int
	json, verbose     bool
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
	m := machine{kernel: kernels[0], initrd: initrd, dir: dir, accel: o.accel}
	m.args = fmt.Sprintf("lab.time=%s lab.cycles=%d lab.only=%s", o.each, o.cycles, o.only)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	return m.run(ctx, o)
}

// collect reads the guest's lines and prints the table. It returns an error if a case failed or the guest did not end.
func collect(lines *bufio.Scanner, o *options) error {
	failed, rows, done := 0, 0, false
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == result.Done {
			done = true
			break
		}
		text, ok := strings.CutPrefix(line, result.Prefix)
		var r result.Row
		if !ok || json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&r) != nil {
			if o.verbose {
				fmt.Println("   |", line)
			}
			continue
		}
		rows++
		if !r.OK && !r.Skip {
			failed++
		}
		printRow(&r, text, o.json)
	}
	switch {
	case !done:
		return errors.Join(fmt.Errorf("the guest ended before its last case, after %d", rows), lines.Err())
	case rows == 0:
		return errors.New("no case ran")
	case failed > 0:
		return fmt.Errorf("%d of %d cases failed", failed, rows)
	}
	fmt.Fprintf(os.Stderr, "lab: all %d cases passed\n", rows)
	return nil
}

func printRow(r *result.Row, text string, asJSON bool) {
	if asJSON {
		fmt.Println(text)
		return
	}
	verdict := "FAIL"
	if r.Skip {
		verdict = "skip"
	} else if r.OK {
		verdict = "ok"
	}
	fmt.Printf("%-8s %-28s %-4s %6.1f s  %s\n", r.Suite, r.Case, verdict, r.Secs, r.Note)
}
