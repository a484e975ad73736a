package main

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest"
)

// TestTheGPUBuildWithoutAGPU: with the tags of a machine with a GPU the binary builds, links nothing of NVIDIA's, starts,
// says of every faster runtime why it was passed over, and recognises on the CPU. What it says where TensorRT's objects
// were not compiled (scripts/trt) is right too, but other.
func TestTheGPUBuildWithoutAGPU(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/nvidia0"); err == nil {
		t.Skip("this machine has a GPU")
	}
	d := daemontest.New(t)
	bin := filepath.Join(t.TempDir(), "vigild-gpu")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "cuda,tensorrt", "-o", bin, ".")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	linksOnlyTheSystem(t, bin)
	conf := writeConfig(t, d)
	var findings []finding
	runJSON(t, bin, &findings, "doctor", "--config", conf, "--json")
	for part, want := range map[string]string{
		"tensorrt": "TensorRT library not found: install TensorRT", "cuda": "no NVIDIA driver: libcuda.so.1",
		"onnxruntime-tensorrt": "has no TensorRT provider beside it", "onnxruntime-cuda": "has no CUDA provider beside it",
	} {
		i := slices.IndexFunc(findings, func(f finding) bool { return f.Part == part })
		if i < 0 || findings[i].State != note || !strings.Contains(findings[i].Detail, want) {
			t.Errorf("%s: want %q in %+v", part, want, findings)
		}
	}
	var models []core.ModelInfo
	runJSON(t, bin, &models, "models", "list", "--config", conf, "--json")
	if len(models) != 1 || !models[0].InUse || !strings.Contains(models[0].Runtime, "CPU") || len(models[0].PassedOver) != 3 ||
		!strings.HasPrefix(models[0].PassedOver[0], "tensorrt: TensorRT library not found") {
		t.Errorf("%+v", models)
	}
}

// linksOnlyTheSystem fails for a binary that the loader could not start without libraries that a bare system lacks.
func linksOnlyTheSystem(t *testing.T, bin string) {
	t.Helper()
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range libraries {
		if name, _, _ := strings.Cut(l, ".so"); !slices.Contains([]string{"libc", "libm", "libdl", "libpthread", "libresolv", "ld-linux-x86-64", "ld-linux-aarch64"}, name) {
			t.Errorf("the binary needs %s to start", l)
		}
	}
}

// runJSON runs the binary without a TensorRT to find and reads its output; exit code 4 is an answer too.
func runJSON(t *testing.T, bin string, into any, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), "VIGIL_TRT_LIB=", "VIGIL_ORT_LIB="+infertest.Library(t))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != exitProblem {
		t.Fatalf("%v: %v\n%s", args, err, exit.Stderr)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%v printed %q: %v", args, out, err)
	}
}
