package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"vigil/daemon/api"
	"vigil/infer/infertest"
	"vigil/secure/securetest"
)

// The scripts in testdata are what a user types, and what must come back. Beside testscript's own commands they know:
//
//	tpm [again]            starts a software TPM in $WORK/swtpm and writes $WORK/vigild.toml for it
//	exits CODE COMMAND...  runs a command that must end with this exit code
//	json PATH VALUE        the last output is JSON, and holds the value at the path: .a.b, .a.0
//	jsonenv NAME PATH      keeps a value of the last output in the environment
//	pictures PERSON NAME   copies the pictures of a person of the public set to NAME1.jpg, NAME2.jpg, ...
//	ready                  waits until a daemon answers at $WORK/state/vigild.sock
//	mode FILE BITS         the file has these permissions, such as 0660
//	damage FILE [OFFSET]   changes the byte at the offset, or one byte in the middle of every page
func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata", nil)
}

// runScripts runs the scripts of a folder; more sets what they find in the environment beside the rest.
func runScripts(t *testing.T, dir string, more func(*testscript.Env) error) {
	t.Helper()
	library, data := infertest.Library(t), infertest.Data(t)
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip(securetest.ErrNoSWTPM)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("VIGIL_ORT_LIB", library)
			e.Setenv("MODELS", filepath.Join(data, "models"))
			e.Setenv("CLIP", filepath.Join(data, "clips", "P1", "yes.15fps.mjpeg"))
			e.Setenv("PHOTOS", filepath.Join(data, "photos"))
			e.Setenv("SPOOF", filepath.Join(data, "spoof"))
			e.Setenv("FACES", filepath.Join(data, "faces", "lfw"))
			if more != nil {
				return more(e)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"tpm": cmdTPM, "exits": cmdExits, "json": cmdJSON, "jsonenv": cmdJSONEnv, "pictures": cmdPictures,
			"ready": cmdReady, "mode": cmdMode, "damage": cmdDamage,
		},
	})
}

// need fails the script unless the command is used as its description says.
func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "tpm")
	addr, stop, err := securetest.StartSWTPM(ts.MkAbs("swtpm"))
	ts.Check(err)
	ts.Defer(func() { ts.Check(stop()) })
	conf := fmt.Sprintf("version = 1\nstate_dir = %q\n[tpm]\naddress = %q\n[runtime]\nthreads = 1\n[policy]\nenroll_samples = 2\n",
		ts.MkAbs("state"), addr)
	ts.Check(os.WriteFile(ts.MkAbs("vigild.toml"), []byte(conf), 0o600))
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "exits CODE COMMAND...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	default:
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// lookUp finds the value at a path such as .problems.0.bucket in the last output.
func lookUp(ts *testscript.TestScript, path string) any {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("the output is no JSON: %v", err)
	}
	for _, key := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' }) {
		switch at := v.(type) {
		case map[string]any:
			v = at[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(at) {
				ts.Fatalf("%s: no element %q in a list of %d", path, key, len(at))
			}
			v = at[i]
		default:
			v = nil
		}
	}
	return v
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 2, "json PATH VALUE")
	if got := fmt.Sprint(lookUp(ts, args[0])); (got == args[1]) == neg {
		ts.Fatalf("%s is %s", args[0], got)
	}
}

func cmdJSONEnv(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "jsonenv NAME PATH")
	text, ok := lookUp(ts, args[1]).(string)
	if !ok || text == "" {
		ts.Fatalf("%s is no text", args[1])
	}
	ts.Setenv(args[0], text)
}

func cmdPictures(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 2, "pictures PERSON NAME")
	files, err := filepath.Glob(filepath.Join(ts.Getenv("FACES"), args[0], "*.jpg"))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("the data set has no pictures of %s", args[0])
	}
	for i, f := range files {
		data, err := os.ReadFile(f)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("%s%d.jpg", args[1], i+1)), data, 0o600))
	}
}

func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) == 0, "ready")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := api.Dial(ts.MkAbs("state/vigild.sock"))
	defer c.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("no daemon answers: %v", err)
		}
	}
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 2, "mode FILE BITS")
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	want, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	if got := info.Mode().Perm(); (got == os.FileMode(want)) == neg {
		ts.Fatalf("%s has mode %04o", args[0], got)
	}
}

func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && (len(args) == 1 || len(args) == 2), "damage FILE [OFFSET]")
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	if len(args) == 2 {
		at, err := strconv.Atoi(args[1])
		ts.Check(err)
		data[at] ^= 1
	} else {
		for at := 2048; at < len(data); at += 4096 {
			data[at] ^= 1
		}
	}
	ts.Check(os.WriteFile(path, data, 0o600))
}
