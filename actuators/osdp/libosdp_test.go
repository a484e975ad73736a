package osdp_test

import (
	"bufio"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vigil/actuators"
	"vigil/actuators/osdp"
)

// libosdp starts libosdp's control panel at the panel's end of the line and returns what it says, line by line.
func libosdp(t *testing.T, master *os.File, key string) <-chan string {
	t.Helper()
	python := os.Getenv("VIGIL_OSDP_PYTHON")
	if python == "" {
		t.Skip("VIGIL_OSDP_PYTHON names no Python with libosdp (pip install libosdp==3.0.8): no independent panel is asked")
	}
	cmd := exec.Command(python, "testdata/libosdp.py", "5", key)
	cmd.ExtraFiles, cmd.Stderr = []*os.File{master}, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		io.Copy(io.Discard, out) //nolint:errcheck // a line that was too long
	}()
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
		for range lines {
		}
		cmd.Wait() //nolint:errcheck // may be killed
		kill.Stop()
	})
	return lines
}

// await reads lines until one begins so.
func await(t *testing.T, lines <-chan string, prefix string) string {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatalf("the panel ended before %q", prefix)
			}
			if strings.HasPrefix(l, prefix) {
				return l
			}
		case <-limit:
			t.Fatalf("the panel does not say %q", prefix)
		}
	}
}

// TestLibosdp: an independent control panel finds the peripheral, opens its channel and gets its cards.
func TestLibosdp(t *testing.T) {
	for name, k := range map[string]*[16]byte{"plain": nil, "secure": &key} {
		t.Run(name, func(t *testing.T) {
			p, r := start(t, k)
			text := "-"
			if k != nil {
				text = hex.EncodeToString(k[:])
			}
			lines := libosdp(t, p.Port.(*os.File), text)
			await(t, lines, "online")
			if k != nil {
				await(t, lines, "secure")
			}
			for range 3 {
				if err := r.Actuate(t.Context(), actuators.Grant{Card: 1234}); err != nil {
					t.Fatal(err)
				}
				want := "card 26 " + hex.EncodeToString(frame26(17, 1234)[4:])
				if got := await(t, lines, "card"); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
			if s := r.Stats(); s.Secure != (k != nil) || s.BadMAC != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("wrong key", func(t *testing.T) {
		p, r := start(t, &key)
		lines := libosdp(t, p.Port.(*os.File), strings.Repeat("77", osdp.KeyBytes))
		for end := time.After(4 * time.Second); ; {
			select {
			case l := <-lines:
				if l == "secure" {
					t.Error("a wrong key opens the channel")
				}
				continue
			case <-end:
			}
			break
		}
		if s := r.Stats(); s.Sessions != 0 || s.Frames == 0 {
			t.Errorf("%+v", s)
		}
	})
}
