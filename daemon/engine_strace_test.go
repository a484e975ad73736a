//go:build tensorrt

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vigil/daemon/daemontest"
	"vigil/infer/builtin"
)

// windowBytes is how much of a secret must be seen in a file to call it there. Windows with few different bytes are not
// looked for: they are in every file.
const (
	windowBytes  = 16
	windowValues = 12
)

// windows are pieces of secrets.
type windows map[[windowBytes]byte]bool

// add takes every piece of a secret at a stride.
func (w windows) add(secret []byte, stride int) {
	for at := 0; at+windowBytes <= len(secret); at += stride {
		var piece [windowBytes]byte
		copy(piece[:], secret[at:])
		different := map[byte]bool{}
		for _, b := range piece {
			different[b] = true
		}
		if len(different) >= windowValues {
			w[piece] = true
		}
	}
}

// in finds a piece anywhere in data; -1 for none.
func (w windows) in(data []byte) int {
	var piece [windowBytes]byte
	for at := 0; at+windowBytes <= len(data); at++ {
		copy(piece[:], data[at:])
		if w[piece] {
			return at
		}
	}
	return -1
}

// written is what strace saw going somewhere.
type written struct {
	call, target string
	data         []byte
}

var (
	writeLine = regexp.MustCompile(`^\d+ +(write|pwrite64|writev|pwritev|sendto|sendmsg)\(\d+<(.*?)>(?:\(deleted\))?, (.*)$`)
	mmapLine  = regexp.MustCompile(`^\d+ +mmap\(.*PROT_WRITE.*MAP_SHARED.*, \d+<(/.*?)>`)
	quotedHex = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// traced runs the command under strace and returns what it wrote and which files it mapped to write.
func traced(t *testing.T, env []string, args ...string) (list []written, mapped []string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	all := append([]string{"-f", "-y", "-xx", "-s", "4194304", "-o", log, "-e",
		"trace=write,pwrite64,writev,pwritev,sendto,sendmsg,sendfile,splice,copy_file_range,mmap"}, args...)
	cmd := exec.CommandContext(t.Context(), "strace", all...)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace %v: %v\n%s", args, err, text)
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := writeLine.FindStringSubmatch(line); m != nil {
			w := written{call: m[1], target: unhex(t, m[2])}
			for _, q := range quotedHex.FindAllStringSubmatch(m[3], -1) {
				w.data = append(w.data, unhex(t, q[1])...)
			}
			list = append(list, w)
		} else if m := mmapLine.FindStringSubmatch(line); m != nil {
			mapped = append(mapped, m[1])
		} else if strings.Contains(line, " sendfile(") || strings.Contains(line, " splice(") || strings.Contains(line, " copy_file_range(") {
			t.Errorf("bytes went from one descriptor to another unseen: %s", line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list, mapped
}

// unhex reads text of which strace wrote every byte as \x00.
func unhex(t *testing.T, text string) string {
	t.Helper()
	if !strings.HasPrefix(text, `\x`) {
		return text
	}
	b, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNoEngineReachesAFileInClear: strace sees every byte that `models build` and its child write. What goes through their
// pipes, the model and the engine, is in none of what goes to a file.
func TestNoEngineReachesAFileInClear(t *testing.T) {
	folder := rtxFolder(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace: run `make setup`")
	}
	if err := exec.CommandContext(t.Context(), "strace", "-o", os.DevNull, "true").Run(); err != nil {
		t.Skipf("strace may not trace here: %v", err)
	}
	d := daemontest.New(t)
	conf := filepath.Join(t.TempDir(), "vigild.toml")
	text := fmt.Sprintf("version = 1\nstate_dir = %q\n[tpm]\naddress = %q\n[runtime]\nthreads = 1\nlibrary = %q\n", d.Config.StateDir, d.Config.TPM.Address,
		d.Config.Runtime.Library)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, err := builtin.Finger()
	if err != nil {
		t.Skip(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	list, mapped := traced(t, []string{testMainEnv + "=1", "VIGIL_TRT_LIB=" + folder}, program, "models", "build", bundle.Manifest.ID, "--config", conf)

	secrets, piped, filed := windows{}, 0, 0
	for _, w := range list {
		if strings.HasPrefix(w.target, "pipe:") && len(w.data) > 4096 {
			secrets.add(w.data, 64)
			piped += len(w.data)
		}
	}
	for _, w := range list {
		if !strings.HasPrefix(w.target, "/") {
			continue
		}
		filed += len(w.data)
		if at := secrets.in(w.data); at >= 0 {
			t.Errorf("%s to %s has bytes of a model or an engine in clear, at %d of %d", w.call, w.target, at, len(w.data))
		}
	}
	for _, m := range mapped {
		if m = unhex(t, m); !strings.HasPrefix(m, "/dev/") && !strings.HasPrefix(m, "/memfd:") {
			t.Errorf("%s is mapped to be written: what goes there is not seen here", m)
		}
	}
	engines, err := filepath.Glob(filepath.Join(d.Config.StateDir, "engines", "*.engine"))
	if err != nil || len(engines) < 2 || piped < 1<<20 || len(secrets) < 1000 || filed < 1<<20 {
		t.Fatalf("the test saw too little: %d engines, %d bytes in pipes, %d windows, %d bytes in files (%v)", len(engines), piped, len(secrets), filed, err)
	}
	t.Logf("%d bytes went through pipes, %d to files, none of %d windows among them; %d engines", piped, filed, len(secrets), len(engines))

	// The control: the search finds what is there.
	var some []byte
	for _, w := range list {
		if strings.HasPrefix(w.target, "pipe:") && len(w.data) >= 60_000 {
			some = bytes.Clone(w.data[1000:50_000])
		}
	}
	if secrets.in(append([]byte("something before"), some...)) < 0 {
		t.Error("the search does not find an engine that is there")
	}
}
