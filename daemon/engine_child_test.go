//go:build tensorrt

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vigil/daemon/core"
	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/trt"
	"vigil/infer/trt/trttest"
)

// rtxFolder is the folder of the real TensorRT-RTX.
func rtxFolder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(infertest.Root(t), ".cache", "rtx", "lib")
	if _, err := os.Stat(filepath.Join(dir, "libtensorrt_rtx.so")); err != nil {
		t.Skip("no TensorRT-RTX: run `make setup` on x86-64 with pip; it says what it cannot fetch")
	}
	return dir
}

// fakeLibrary is a folder with a library of version 1.7.1 whose builder does what its environment says.
func fakeLibrary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	trttest.Link(t, dir, "libtensorrt_rtx.so.1", trttest.Compiled(t, "fake.c"))
	trttest.Link(t, dir, "libtensorrt_onnxparser_rtx.so.1", trttest.Compiled(t, "fake.c"))
	t.Setenv("VIGIL_FAKE_VERSION", "10701")
	t.Setenv("VIGIL_TRT_LIB", dir)
	return dir
}

type plain []byte

func (p plain) Bytes() []byte { return p }
func (p plain) Close() error  { clear(p); return nil }

func heap(n int) (trt.Memory, error) { return make(plain, n), nil }

// gone fails the test if the process is still there.
func gone(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child %d is still there (%v)", pid, err)
	}
}

// TestBadChildrenAreSurvived: one that hangs, eats memory, crashes or leaves is ended and told of; nothing of it stays.
func TestBadChildrenAreSurvived(t *testing.T) {
	fakeLibrary(t)
	for what, c := range map[string]struct {
		limits childLimits
		want   []string
	}{
		"hang":  {childLimits{300 * time.Millisecond, 1 << 30, 20 * time.Millisecond}, []string{"it took longer than it may: 300ms", "the child was ended"}},
		"eat":   {childLimits{time.Minute, 256 << 20, 5 * time.Millisecond}, []string{"it took more memory than it may", "of 256 MiB", "the child was ended"}},
		"crash": {childLimits{time.Minute, 1 << 30, 20 * time.Millisecond}, []string{"ended without an answer", "terminate called by the stand-in SIGABRT: abort"}},
		"exit":  {childLimits{time.Minute, 1 << 30, 20 * time.Millisecond}, []string{"ended without an answer", "the child ended well"}},
		"":      {childLimits{time.Minute, 1 << 30, 20 * time.Millisecond}, []string{"TensorRT refuses: it does not say why"}},
	} {
		t.Run("it_"+what, func(t *testing.T) {
			pid := 0
			b := &childBuilder{limits: c.limits, began: func(p int) { pid = p }}
			if what != "" {
				b.env = []string{"VIGIL_FAKE_BUILDER=" + what}
			}
			_, _, err := b.Build(t.Context(), trt.Order{}, []byte("model"), heap, nil)
			if !errors.Is(err, core.ErrBuild) {
				t.Fatalf("error %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			gone(t, pid)
			t.Log(err)
		})
	}
}

// TestAKilledChildIsSurvived: the same for one that is killed from outside, and for a caller who goes away.
func TestAKilledChildIsSurvived(t *testing.T) {
	fakeLibrary(t)
	limits := childLimits{time.Minute, 1 << 30, 20 * time.Millisecond}
	pid := 0
	b := &childBuilder{limits: limits, env: []string{"VIGIL_FAKE_BUILDER=hang"}, began: func(p int) {
		pid = p
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}}
	_, _, err := b.Build(t.Context(), trt.Order{}, make([]byte, 1<<20), heap, nil)
	if !errors.Is(err, core.ErrBuild) || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("error %v", err)
	}
	gone(t, pid)

	ctx, cancel := context.WithCancel(t.Context())
	b.began = func(p int) { pid = p; cancel() }
	if _, _, err := b.Build(ctx, trt.Order{}, []byte("model"), heap, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	gone(t, pid)
}

// TestAnOrphanEnds: a child whose parent is gone does not build on.
func TestAnOrphanEnds(t *testing.T) {
	dir := fakeLibrary(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	cmd := exec.CommandContext(t.Context(), program, childName)
	cmd.Args[0] = "vigild"
	cmd.Env = append(os.Environ(), "VIGIL_FAKE_BUILDER=hang", "VIGIL_TRT_LIB="+dir)
	cmd.ExtraFiles = []*os.File{to}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	closing := &closer{in: in}
	if _, _, err := trt.Exchange(closing, from, trt.Order{}, []byte("model"), heap, nil); !strings.Contains(fmt.Sprint(err), "ended without an answer") {
		t.Errorf("error %v", err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitError {
		t.Errorf("it ended with %v", err)
	}
}

// closer closes the pipe when the model is through, as a parent that dies does.
type closer struct {
	in interface {
		Write([]byte) (int, error)
		Close() error
	}
}

func (c *closer) Write(p []byte) (int, error) {
	n, err := c.in.Write(p)
	if string(p) == "model" && err == nil {
		err = c.in.Close()
	}
	return n, err
}

// TestTheRealBuilderInAChild: NVIDIA's parser and builder, in a real child, with progress; what is not ONNX is refused.
func TestTheRealBuilderInAChild(t *testing.T) {
	t.Setenv("VIGIL_TRT_LIB", rtxFolder(t))
	model, err := os.ReadFile(infertest.Data(t, "models", "mobilefacenet_foamliu.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	b := &childBuilder{limits: defaultChildLimits}
	phases := map[string]bool{}
	input := infer.Tensor{Name: "input.1", Type: "float32", Shape: []int64{1, 3, 112, 112}}
	engine, built, err := b.Build(t.Context(), trt.Order{Inputs: []infer.Tensor{input}}, model, heap, func(s trt.Step) { phases[s.Phase] = true })
	if err != nil {
		t.Fatal(err)
	}
	if built.Bytes < 1<<20 || int64(len(engine.Bytes())) != built.Bytes || built.Layers == 0 || built.Library.Version != 10701 || !phases["parse"] || len(phases) < 2 {
		t.Errorf("%+v, phases %v", built, phases)
	}
	t.Logf("%+v, phases %v", built, phases)
	if err := engine.Close(); err != nil {
		t.Error(err)
	}
	_, _, err = b.Build(t.Context(), trt.Order{}, []byte("this is not ONNX"), heap, nil)
	if !errors.Is(err, trt.ErrRefused) || !errors.Is(err, core.ErrBuild) {
		t.Errorf("error %v", err)
	}
	t.Log(err)
}

// TestTensorRTScripts are what a user types who builds engines, with NVIDIA's real parser and builder.
func TestTensorRTScripts(t *testing.T) {
	rtx := rtxFolder(t)
	if _, err := os.Stat("/dev/nvidia0"); err == nil {
		t.Skip("the scripts are about a machine without a GPU")
	}
	proxy := t.TempDir()
	trttest.Link(t, proxy, "libtensorrt_rtx.so.1", trttest.Compiled(t, "proxy.c"))
	for name, of := range map[string]string{"libtensorrt_onnxparser_rtx.so.1": "libtensorrt_onnxparser_rtx.so", "libcudart.so.13": "libcudart.so.13"} {
		if err := os.Symlink(filepath.Join(rtx, of), filepath.Join(proxy, name)); err != nil {
			t.Fatal(err)
		}
	}
	runScripts(t, filepath.Join("testdata", "tensorrt"), func(e *testscript.Env) error {
		e.Setenv("RTX", rtx)
		e.Setenv("PROXY", proxy)
		e.Setenv("VIGIL_PROXY_REAL", filepath.Join(rtx, "libtensorrt_rtx.so"))
		return nil
	})
}
