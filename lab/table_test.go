package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestTheTableCounts(t *testing.T) {
	const (
		good = `LAB {"suite":"s","case":"a","ok":true,"note":"n","secs":1}` + "\r\n"
		bad  = `LAB {"suite":"s","case":"b","ok":false,"note":"n","secs":1}` + "\n"
		skip = `LAB {"suite":"s","case":"c","ok":false,"skip":true,"note":"n","secs":1}` + "\n"
		now  = `LAB {"suite":"s","case":"d","now":true,"note":"half","secs":1}` + "\n"
		done = "LAB-DONE\n"
	)
	for name, c := range map[string]struct {
		guest, collect, verdict string // what the errors say; empty for none
	}{
		"all well":              {"hello\n" + now + good + skip + done, "", ""},
		"a case failed":         {good + bad + done, "failed: s b", "1 of 2 cases failed"},
		"the guest went away":   {good, "before its last case", ""},
		"nothing ran":           {done, "", "no case ran"},
		"only on the way":       {now + done, "", "no case ran"},
		"a row that is garbage": {"LAB {\n" + good + done, "", ""},
	} {
		tab := newTable(&options{})
		err := tab.collect(bufio.NewScanner(strings.NewReader(c.guest)))
		if !says(err, c.collect) {
			t.Errorf("%s: collect says %v, want %q", name, err, c.collect)
		}
		if err := tab.verdict(); !says(err, c.verdict) {
			t.Errorf("%s: the verdict is %v, want %q", name, err, c.verdict)
		}
		if err != nil {
			if tab.fail(err); tab.verdict() == nil {
				t.Errorf("%s: what went wrong beside the cases is forgotten", name)
			}
		}
	}
}

func says(err error, want string) bool {
	return (err == nil) == (want == "") && (err == nil || strings.Contains(err.Error(), want))
}
