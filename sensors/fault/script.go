package fault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind is what goes wrong.
type Kind uint8

// Kinds of faults.
const (
	Drop    Kind = iota + 1 // the frame is lost: its number is missing
	Stall                   // the frame comes late
	Corrupt                 // bytes of the frame are others
	Cut                     // the end of the frame is missing; for compressed pictures
	Unplug                  // the device goes, and comes back
	Fail                    // the driver reports an error
)

var kinds = map[string]Kind{"drop": Drop, "stall": Stall, "corrupt": Corrupt, "cut": Cut, "unplug": Unplug, "fail": Fail}

// Step is one line of a script: a fault and the frames that it meets.
type Step struct {
	Kind        Kind
	First, Last uint64        // frames of the wrapped source, counted from 1
	Every       uint64        // of these each Every-th, the first included; 0 is 1
	Chance      float64       // 0..1, drawn for each frame by the seed; 0 is 1
	For         time.Duration // of Stall and Unplug
	Bytes       int           // of Corrupt and Cut
}

// Script is what goes wrong with a source, in the order in which it is looked up.
type Script []Step

// Bounds of a script.
const (
	maxScriptBytes = 64 << 10
	maxSteps       = 1000
	maxFor         = time.Hour
)

// Parse reads a script: one fault a line, "#" begins a comment.
//
//	drop    FRAMES [every N] [chance P]
//	stall   FRAMES for DURATION ...
//	corrupt FRAMES [bytes N] ...      (1 if not given)
//	cut     FRAMES [bytes N] ...      (1 if not given)
//	unplug  FRAMES for DURATION ...
//	fail    FRAMES ...
//
// FRAMES is N, N-M or N- (without end), from 1. An error names the line and what may stand there.
func Parse(text string) (Script, error) {
	if len(text) > maxScriptBytes {
		return nil, fmt.Errorf("fault script of %d bytes: at most %d", len(text), maxScriptBytes)
	}
	var s Script
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		step, err := parseStep(words)
		if err != nil {
			return nil, fmt.Errorf("fault script, line %d: %w", i+1, err)
		}
		if s = append(s, step); len(s) > maxSteps {
			return nil, fmt.Errorf("fault script, line %d: more than %d faults", i+1, maxSteps)
		}
	}
	return s, nil
}

func parseStep(words []string) (Step, error) {
	kind, ok := kinds[words[0]]
	if !ok {
		return Step{}, fmt.Errorf("%q: drop, stall, corrupt, cut, unplug or fail", words[0])
	}
	if len(words) < 2 {
		return Step{}, fmt.Errorf("%s: frames are missing: N, N-M or N-", words[0])
	}
	s := Step{Kind: kind}
	var err error
	if s.First, s.Last, err = parseFrames(words[1]); err != nil {
		return Step{}, err
	}
	rest := words[2:]
	if len(rest)%2 != 0 {
		return Step{}, fmt.Errorf("%q has no value", rest[len(rest)-1])
	}
	seen := map[string]bool{}
	for ; len(rest) > 0; rest = rest[2:] {
		if seen[rest[0]] {
			return Step{}, fmt.Errorf("%q stands there twice", rest[0])
		}
		seen[rest[0]] = true
		if err := s.option(rest[0], rest[1]); err != nil {
			return Step{}, err
		}
	}
	if timed := kind == Stall || kind == Unplug; timed && s.For == 0 {
		return Step{}, fmt.Errorf("%s needs \"for DURATION\", such as \"for 200ms\"", words[0])
	}
	if (kind == Corrupt || kind == Cut) && s.Bytes == 0 {
		s.Bytes = 1
	}
	return s, nil
}

func parseFrames(word string) (first, last uint64, err error) {
	from, to, isRange := strings.Cut(word, "-")
	first, err = strconv.ParseUint(from, 10, 64)
	switch {
	case err != nil || first == 0:
	case !isRange:
		return first, first, nil
	case to == "":
		return first, ^uint64(0), nil
	default:
		if last, err = strconv.ParseUint(to, 10, 64); err == nil && last >= first {
			return first, last, nil
		}
	}
	return 0, 0, fmt.Errorf("frames %q: N, N-M or N-, counted from 1", word)
}

// option reads one name and its value.
func (s *Step) option(name, value string) (err error) {
	switch name {
	case "every":
		s.Every, err = strconv.ParseUint(value, 10, 64)
		if err == nil && s.Every == 0 {
			err = errors.New("0")
		}
	case "chance":
		s.Chance, err = strconv.ParseFloat(value, 64)
		if err == nil && !(s.Chance > 0 && s.Chance <= 1) {
			err = errors.New("out of range")
		}
	case "for":
		if s.Kind != Stall && s.Kind != Unplug {
			return errors.New("\"for\" belongs to stall and unplug")
		}
		s.For, err = time.ParseDuration(value)
		if err == nil && (s.For <= 0 || s.For > maxFor) {
			err = errors.New("out of range")
		}
	case "bytes":
		if s.Kind != Corrupt && s.Kind != Cut {
			return errors.New("\"bytes\" belongs to corrupt and cut")
		}
		s.Bytes, err = strconv.Atoi(value)
		if err == nil && (s.Bytes < 1 || s.Bytes > 1<<30) {
			err = errors.New("out of range")
		}
	default:
		return fmt.Errorf("%q: every, chance, for or bytes", name)
	}
	if err != nil {
		return fmt.Errorf("%s %q: every N from 1, chance P above 0 to 1, for DURATION to %v, bytes N from 1", name, value, maxFor)
	}
	return nil
}

// meets reports whether the step is about frame n, its chance aside.
func (s *Step) meets(n uint64) bool {
	return n >= s.First && n <= s.Last && (n-s.First)%max(1, s.Every) == 0
}
