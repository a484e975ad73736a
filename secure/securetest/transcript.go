package securetest

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Marks of swtpm's log (level 5 and higher) in front of a hex dump.
const (
	markRead  = "SWTPM_IO_Read: length "
	markWrite = "SWTPM_IO_Write: length "
)

// ParseTranscript reads the log that swtpm wrote (see WithLog) and pairs
// commands with responses. Lines that are not part of a dump are skipped. It
// fails on a dump that is shorter or longer than announced, except that a
// truncated last one, of a TPM that was killed, is left out.
func ParseTranscript(r io.Reader) ([]Exchange, error) {
	var p parser
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	for n := 1; lines.Scan(); n++ {
		if err := p.line(strings.TrimSpace(lines.Text())); err != nil {
			return nil, fmt.Errorf("cannot read transcript, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read transcript: %w", err)
	}
	return p.out, nil
}

// parser collects one dump at a time.
type parser struct {
	out     []Exchange
	want    int // bytes still missing of the dump
	command bool
	dump    []byte
}

func (p *parser) line(text string) error {
	if p.want > 0 {
		return p.hex(text)
	}
	for _, mark := range []string{markRead, markWrite} {
		if _, size, ok := strings.Cut(text, mark); ok {
			n, err := strconv.Atoi(strings.TrimSpace(size))
			if err != nil || n < 0 || n > maxFrame {
				return fmt.Errorf("length %q", size)
			}
			p.want, p.command, p.dump = n, mark == markRead, make([]byte, 0, n)
		}
	}
	return nil
}

// hex takes one line of a dump.
func (p *parser) hex(text string) error {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return fmt.Errorf("in a dump: %w", err)
	}
	if len(raw) > p.want {
		return fmt.Errorf("dump is %d bytes longer than announced", len(raw)-p.want)
	}
	p.dump, p.want = append(p.dump, raw...), p.want-len(raw)
	if p.want > 0 {
		return nil
	}
	if p.command {
		p.out = append(p.out, Exchange{Command: p.dump})
	} else if n := len(p.out); n > 0 && p.out[n-1].Response == nil {
		p.out[n-1].Response = p.dump
	} else {
		return fmt.Errorf("response without command")
	}
	return nil
}
