// Package trttest makes stand-ins of NVIDIA's libraries for tests: TensorRT's runtime, compiled from NVIDIA's own headers of
// a generation, the CUDA runtime, and libraries that misbehave. It is imported from tests only.
//
// Promises: what is missing skips the test with one line that names the remedy. A stand-in says in its log that it is one.
// Compiled libraries are kept in .cache/trt/bin by their content; the folders that hold them are the test's.
package trttest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vigil/infer/infertest"
)

// Generation is a version of TensorRT to stand in for, with the headers that describe it.
type Generation struct {
	Name             string
	headers, library string
	number, version  int
	Streams          bool // it has a stream reader
}

// Generations are those that tests go through. 10.3 is JetPack 6's: it has no stream reader that every later one has.
var Generations = []Generation{
	{"10.3", ".cache/trt/headers/TRT-Enterprise-10.16", "libnvinfer.so.10", 10, 100300, false},
	{"10.16", ".cache/trt/headers/TRT-Enterprise-10.16", "libnvinfer.so.10", 10, 101601, true},
	{"11.4", ".cache/rtx/headers/TRT-Enterprise-11.4", "libnvinfer.so.11", 11, 110400, true},
	{"rtx", ".cache/rtx/headers/TRT-RTX-1.7", "libtensorrt_rtx.so.1", 1, 10701, true},
}

// Compiled compiles a file of infer/trt/testdata/standin once for its content and these arguments, and returns the
// library's path.
func Compiled(t testing.TB, source string, args ...string) string {
	t.Helper()
	root := infertest.Root(t)
	path := filepath.Join(root, "infer", "trt", "testdata", "standin", source)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s %q", data, args)
	out := filepath.Join(root, ".cache", "trt", "bin", fmt.Sprintf("%s-%x.so", source, h.Sum(nil)[:8]))
	if _, err := os.Stat(out); err == nil {
		return out
	}
	compiler := "g++"
	if strings.HasSuffix(source, ".c") {
		compiler = "gcc"
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("no %s to compile the stand-in with: run `make setup`", compiler)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	part := fmt.Sprintf("%s.%d", out, os.Getpid()) // whole or not at all, also beside another test's
	all := append([]string{"-O1", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", part, path}, args...)
	if text, err := exec.CommandContext(context.Background(), compiler, all...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", compiler, all, err, text)
	}
	if err := os.Rename(part, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Link puts a library into a folder under a name.
func Link(t testing.TB, dir, name, library string) {
	t.Helper()
	if err := os.Symlink(library, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// trapped is NvInferImpl.h with bodies for the functions of the classes that the stand-in derives from: they trap, unless
// the stand-in has its own. The order in the virtual tables stays NVIDIA's.
func trapped(impl []byte) []byte {
	classes := regexp.MustCompile(`(?s)class V(Runtime|CudaEngine|ExecutionContext) .*?\n};`)
	pure := regexp.MustCompile(`=\s*0;`)
	return classes.ReplaceAllFunc(impl, func(class []byte) []byte { return pure.ReplaceAll(class, []byte("{ __builtin_trap(); }")) })
}

// headersOf copies the headers of a generation, which include each other from where they lie, with the trapped one.
func headersOf(t testing.TB, g Generation) string {
	t.Helper()
	from := filepath.Join(infertest.Root(t), g.headers)
	own := filepath.Join(infertest.Root(t), ".cache", "trt", "standin-"+g.Name)
	found, err := filepath.Glob(filepath.Join(from, "*.h"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Skipf("no headers of TensorRT %s: run scripts/trt, it says what it cannot fetch", g.Name)
	}
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		data, err := os.ReadFile(f)
		if filepath.Base(f) == "NvInferImpl.h" {
			data = trapped(data)
		}
		to := filepath.Join(own, filepath.Base(f))
		if old, e := os.ReadFile(to); err == nil && (e != nil || string(old) != string(data)) {
			err = os.WriteFile(to, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// RealCUDA says that the CUDA runtime is a real one: VIGIL_REAL_CUDART names the path of a libcudart.so to use under the
// stand-in of TensorRT, on a machine with a device.
func RealCUDA() bool { return os.Getenv("VIGIL_REAL_CUDART") != "" }

// StandIn makes a folder with the stand-ins of TensorRT and of the CUDA runtime.
func StandIn(t testing.TB, g Generation) string {
	t.Helper()
	own := headersOf(t, g)
	dir := t.TempDir()
	Link(t, dir, g.library, Compiled(t, "runtime.cc", "-std=c++17", "-Wno-unused-parameter", "-fvisibility=hidden", "-isystem", own,
		"-isystem", filepath.Join(infertest.Root(t), filepath.Dir(g.headers)), fmt.Sprint("-DVT_GEN=", g.number), fmt.Sprint("-DVT_VERSION=", g.version)))
	cuda := os.Getenv("VIGIL_REAL_CUDART")
	if cuda == "" {
		cuda = Compiled(t, "cudart.c")
	}
	Link(t, dir, "libcudart.so.12", cuda)
	return dir
}

// EngineText is an engine of the stand-in: lines as in runtime.cc, with padding, so that it does not fit one read.
func EngineText(lines ...string) []byte {
	return []byte("VIGIL-STAND-IN\n" + strings.Join(lines, "\n") + "\nend\n" + strings.Repeat("padding ", 20_000))
}
