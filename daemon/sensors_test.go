package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
	"vigil/sensors/uart/uarttest"
)

// TestAModuleIsSetFromTheCommandLine: the password comes from standard input or a file that only its owner reads, is in no output
// and no log, and what was changed is audited.
func TestAModuleIsSetFromTheCommandLine(t *testing.T) {
	m, err := uarttest.New(uarttest.Options{Baud: 57600, Speed: 40, Password: 7})
	if err != nil {
		t.Skip(err)
	}
	defer m.Close()
	d := daemontest.NewFake(t, fake.New(), nil)
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "vigild.toml")
	text := fmt.Sprintf("version = 1\nstate_dir = %q\n[tpm]\naddress = %q\n[models]\nface = \"off\"\nfinger = \"off\"\n[[sensors]]\nname = \"reader\"\ndriver = \"uart\"\nmodality = \"finger\"\npath = %q\npassword_file = %q\n",
		d.Config.StateDir, d.Config.TPM.Address, m.Path(), file)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(code int, stdin string, args ...string) (out, errs string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var o, e bytes.Buffer
		if got := Run(ctx, Env{Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e}, append([]string{"--config", conf, "sensors"}, args...)); got != code {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, o.String(), e.String())
		}
		if all := o.String() + e.String(); strings.Contains(all, "3237998146") || strings.Contains(strings.ToLower(all), "c0ffee42") {
			t.Errorf("%v: the password is shown: %s", args, all)
		}
		return o.String(), e.String()
	}
	write("7\n", 0o644)
	if _, errs := run(exitError, "", "module", "reader"); !strings.Contains(errs, "chmod 600") {
		t.Errorf("a password that everybody reads: %s", errs)
	}
	write("7\n", 0o600)
	if out, _ := run(0, "", "module", "reader"); !strings.Contains(out, "57600 baud") {
		t.Errorf("%s", out)
	}
	run(exitUsage, "", "module", "reader", "--baud", "1234")
	if _, errs := run(exitError, "secret-c0ffee42-words", "module", "reader", "--new-password", "-"); !strings.Contains(errs, "32 bits") {
		t.Errorf("a password that is none: %s", errs)
	}
	var info core.ModuleInfo
	out, _ := run(0, "0xC0FFEE42\n", "module", "reader", "--new-password", "-", "--baud", "115200", "--json")
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Baud != 115200 || !info.PasswordChanged || !info.BaudChanged {
		t.Errorf("%s, %v", out, err)
	}
	if _, errs := run(exitError, "", "module", "reader"); !strings.Contains(errs, "password") {
		t.Errorf("with the old password: %s", errs)
	}
	write("0xC0FFEE42", 0o600)
	run(0, "", "module", "reader")
	run(0, "", "cameras")
	if out, _ := run(0, "", "cameras", "--json"); !strings.HasPrefix(out, "[") {
		t.Errorf("a list is %q", out)
	}
	run(exitError, "", "module", "nobody")
	a := d.Open(t)
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	events, err := a.Events(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, e := range events {
		if e.Type == "module changed" {
			changed++
			if e.Detail["new_baud"] != 115200.0 || e.Detail["new_password"] != true || len(e.Detail) != 4 {
				t.Errorf("audited: %v", e.Detail)
			}
		}
	}
	if changed != 1 {
		t.Errorf("%d changes are audited", changed)
	}
}
