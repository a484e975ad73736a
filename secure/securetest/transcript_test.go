package securetest

import (
	"encoding/hex"
	"strings"
	"testing"
)

const sampleLog = ` SWTPM_IO_Read: length 12
 80 01 00 00 00 0C 00 00 01 7B 00 08 
 SWTPM_IO_Write: length 20
 80 01 00 00 00 14 00 00 00 00 00 08 E7 EE 95 C8 
 05 BD 34 F5 
Data client disconnected
 Ctrl Cmd: length 4
 00 00 00 10 
 SWTPM_IO_Read: length 12
 80 01 00 00 00 0C 00 00 01 7B 00 08 
`

func TestParseTranscript(t *testing.T) {
	for _, c := range []struct {
		name, log string
		want      string // hex of all commands and responses; "error" for one
	}{
		{"two, the second unanswered", sampleLog, "80010000000c0000017b0008>80010000001400000000" + "0008e7ee95c805bd34f5,80010000000c0000017b0008>"},
		{"nothing", "", ""},
		{"only noise", "hello\nlength 12\n80 01\n", ""},
		{"cut in a dump", sampleLog[:60], ""},
		{"a prefix", "swtpm: SWTPM_IO_Read: length 2\n 80 01\n", "8001>"},
		{"too long", "SWTPM_IO_Read: length 1\n 80 01\n", "error"},
		{"not hex", "SWTPM_IO_Read: length 1\n xx\n", "error"},
		{"bad length", "SWTPM_IO_Read: length -1\n", "error"},
		{"huge length", "SWTPM_IO_Read: length 99999999\n", "error"},
		{"answer first", "SWTPM_IO_Write: length 1\n 80\n", "error"},
		{"two answers", sampleLog[:strings.Index(sampleLog, "Data")] + "SWTPM_IO_Write: length 1\n 80\n", "error"},
	} {
		traffic, err := ParseTranscript(strings.NewReader(c.log))
		var parts []string
		for _, x := range traffic {
			parts = append(parts, hex.EncodeToString(x.Command)+">"+hex.EncodeToString(x.Response))
		}
		got := strings.Join(parts, ",")
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%s: got %s (%v), want %s", c.name, got, err, c.want)
		}
	}
}

func TestCheckRefusesToGuess(t *testing.T) {
	sessions := []byte{0x80, 2, 0, 0, 0, 14, 0, 0, 1, 0xEE, 0, 0, 0, 0}
	if _, _, err := Check([]Exchange{{Command: sessions}}, []byte("0123456789abcdef")); err == nil {
		t.Error("judged an unknown command with sessions")
	}
	if _, _, err := Check([]Exchange{{Command: sessions[:5]}}); err == nil {
		t.Error("judged a command without header")
	}
	if _, _, err := Check(nil, []byte("short")); err == nil {
		t.Error("looked for 5 bytes")
	}
}

func TestCheckFindsParts(t *testing.T) {
	secret := []byte("0123456789abcdefghijklmnopqrstuv")
	clear := []byte{0x80, 1, 0, 0, 0, 10, 0, 0, 9, 9}
	for _, c := range []struct {
		shown string
		want  int
	}{
		{"0123456789abcdefghijklmnopqrstuv", 1}, {"ghijklmnopqrstuv", 1}, {"56789abcdefghijk", 1},
		{"0123456789abcde", 0}, {"nothing of that is there", 0},
	} {
		x := Exchange{Command: clear, Response: append(append([]byte(nil), clear...), c.shown...)}
		findings, _, err := Check([]Exchange{x}, secret)
		if err != nil || len(findings) != c.want {
			t.Errorf("%q: %v (%v)", c.shown, findings, err)
		}
		for _, f := range findings {
			if strings.Contains(f.String(), c.shown) {
				t.Error("the finding prints the secret")
			}
		}
	}
}

func TestStartSWTPMRefuses(t *testing.T) {
	t.Run("comma", func(t *testing.T) {
		if _, _, err := StartSWTPM("/tmp/a,b"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("no program", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, _, err := StartSWTPM(t.TempDir()); err != ErrNoSWTPM {
			t.Errorf("got %v", err)
		}
	})
}

func TestStartSWTPMInLongPath(t *testing.T) {
	dir := t.TempDir() + "/" + strings.Repeat("long/", 20)
	addr, stop, err := StartSWTPM(dir)
	if err == ErrNoSWTPM {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(addr) > 108 {
		t.Errorf("socket path is %s", addr)
	}
	for range 2 {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestNewKeyring(t *testing.T) {
	r, err := NewKeyring()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzParseTranscript(f *testing.F) {
	f.Add(sampleLog)
	f.Add(" SWTPM_IO_Read: length 1\n 80\n SWTPM_IO_Write: length 1\n 80\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, log string) {
		traffic, err := ParseTranscript(strings.NewReader(log))
		if err == nil {
			Eavesdrop(traffic) // must not panic on what the parser accepts
		}
	})
}
