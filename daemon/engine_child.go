//go:build tensorrt

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/core"
	"vigil/infer/trt"
)

// childName is the hidden command of the build child.
const childName = "trt-build-child"

func init() {
	childCommand = func() *cobra.Command {
		return &cobra.Command{
			Use: childName, Hidden: true, Args: exactly(),
			Short: "Build one TensorRT engine for the vigild that started this process",
			RunE: func(*cobra.Command, []string) error {
				out := os.NewFile(3, "answers")
				if _, err := out.Stat(); err != nil {
					return fmt.Errorf("%s is started by vigild itself: it has no pipe to answer on", childName)
				}
				return trt.RunChild(os.Stdin, out, func() { os.Exit(exitError) })
			},
		}
	}
	newEngineBuilder = func() core.EngineBuilder { return &childBuilder{limits: defaultChildLimits} }
}

// childLimits bound one build.
type childLimits struct {
	time   time.Duration
	memory int64 // bytes, resident and its own
	poll   time.Duration
}

// defaultChildLimits: a large model takes ten minutes and some gigabytes on a Jetson.
var defaultChildLimits = childLimits{time: 30 * time.Minute, memory: 6 << 30, poll: 50 * time.Millisecond}

// childBuilder builds engines in a child process of this same program. The model goes there by a pipe and the engine comes
// back by one. It implements core.EngineBuilder.
type childBuilder struct {
	limits childLimits
	env    []string // beside this process's own
	began  func(pid int)
}

// Library implements core.EngineBuilder. It opens TensorRT in this process: that is cheap, and what it says of itself
// decides which engines fit.
func (*childBuilder) Library(_ context.Context, where string) (trt.Library, error) {
	return trt.Inspect(where)
}

// head keeps the beginning of what is written to it: a crash says first why, and then where.
type head struct{ text []byte }

const headBytes = 2 << 10

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), headBytes-len(h.text))]...)
	return len(p), nil
}

// errors of a child that had to be ended.
var (
	errChildTime   = errors.New("it took longer than it may")
	errChildMemory = errors.New("it took more memory than it may")
)

// Build implements core.EngineBuilder. Errors: core.ErrBuild.
func (c *childBuilder) Build(ctx context.Context, o trt.Order, model []byte, alloc trt.Alloc, step func(trt.Step)) (trt.Memory, trt.Built, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	timer := time.AfterFunc(c.limits.time, func() { end(fmt.Errorf("%w: %v", errChildTime, c.limits.time)) })
	defer timer.Stop()
	r, err := c.start(ctx)
	if err != nil {
		return nil, trt.Built{}, err
	}
	defer r.watch(c.limits, end)()
	o.MemoryBytes, o.CPUSeconds = 2*c.limits.memory, 0 // the watch is exact, the child's own limit the net below it
	engine, built, err := trt.Exchange(r.to, r.from, o, model, alloc, step)
	waited := r.wait(err == nil)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, built, fmt.Errorf("%w: %w; the child was ended", core.ErrBuild, cause)
	}
	switch {
	case errors.Is(err, trt.ErrRefused):
		return nil, built, fmt.Errorf("%w: %w", core.ErrBuild, err)
	case err != nil:
		return nil, built, fmt.Errorf("%w: %w (%s)", core.ErrBuild, err, r.last(waited))
	case waited != nil: // it gave a whole engine, and then fell over: the engine is whole all the same
		built.Notes = append(built.Notes, "the build child ended badly after its work: "+r.last(waited))
	}
	return engine, built, nil
}

// child is a running build child.
type child struct {
	cmd    *exec.Cmd
	to     io.WriteCloser
	from   *os.File
	stderr *head
}

func (c *childBuilder) start(ctx context.Context) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot find this program: %w", core.ErrBuild, err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", core.ErrBuild, err)
	}
	defer answers.Close()
	r := &child{cmd: exec.CommandContext(ctx, program, childName), from: from, stderr: &head{}}
	r.cmd.Args[0] = "vigild"
	r.cmd.Dir = "/"
	// The driver's own cache of compiled kernels is files; none is to be made of a sealed model.
	r.cmd.Env = append(append(os.Environ(), "CUDA_CACHE_DISABLE=1", "GOTRACEBACK=none"), c.env...)
	r.cmd.ExtraFiles = []*os.File{answers}
	r.cmd.Stderr = r.stderr // Stdout is not ours: libraries write there what they like, and it goes nowhere
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Cancel = func() error { return syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }
	r.cmd.WaitDelay = 5 * time.Second
	if r.to, err = r.cmd.StdinPipe(); err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: cannot start the build child: %w", core.ErrBuild, err), from.Close())
	}
	if c.began != nil {
		c.began(r.cmd.Process.Pid)
	}
	return r, nil
}

// watch ends the child when it takes too much memory. The returned function ends the watch and waits for it.
func (r *child) watch(l childLimits, end context.CancelCauseFunc) func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(l.poll)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if n := trt.Resident(r.cmd.Process.Pid); n > l.memory {
					end(fmt.Errorf("%w: %s of %s", errChildMemory, bytesText(n), bytesText(l.memory)))
					return
				}
			}
		}
	}()
	return func() { close(stop); <-done }
}

// wait ends the child, at once unless it has said its last word, and returns how it ended.
func (r *child) wait(answered bool) error {
	if !answered {
		_ = r.cmd.Cancel() // it may have ended already
	}
	closed := errors.Join(r.to.Close(), r.from.Close())
	err := r.cmd.Wait()
	if answered && err == nil && !errors.Is(closed, os.ErrClosed) {
		err = closed
	}
	return err
}

// last is how the child ended and what it wrote first, for people.
func (r *child) last(err error) string {
	text := "the child ended well"
	if err != nil {
		text = "the child: " + err.Error()
	}
	if said := strings.Fields(string(bytes.ToValidUTF8(r.stderr.text, nil))); len(said) > 0 {
		const words = 20
		text += "; it wrote: " + strings.Join(said[:min(len(said), words)], " ")
	}
	return text
}
