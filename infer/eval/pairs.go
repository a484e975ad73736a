package eval

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Pair is one comparison of a protocol. Names are folders of pictures.
type Pair struct {
	A, B     string
	IA, IB   int // number of the picture, from 1
	Mated    bool
	Fold     int // from 0
	position int
}

// maxProtocolPairs bounds a protocol file.
const maxProtocolPairs = 10_000_000

// ParsePairs reads a protocol in the layout of LFW's pairs.txt: a line "folds pairs", then per fold that many mated pairs
// "name i j" and that many non-mated ones "name i name j". Errors name the line.
func ParsePairs(r io.Reader) ([]Pair, error) {
	s := bufio.NewScanner(r)
	line := 0
	next := func() ([]string, error) {
		for s.Scan() {
			line++
			if f := strings.Fields(s.Text()); len(f) > 0 {
				return f, nil
			}
		}
		return nil, errors.Join(io.ErrUnexpectedEOF, s.Err())
	}
	head, err := next()
	if err != nil || len(head) != 2 {
		return nil, fmt.Errorf("line %d: expected the number of folds and of pairs", line)
	}
	folds, err1 := strconv.Atoi(head[0])
	per, err2 := strconv.Atoi(head[1])
	if err1 != nil || err2 != nil || folds <= 0 || per <= 0 || folds > maxProtocolPairs/per {
		return nil, fmt.Errorf("line %d: %q folds of %q pairs", line, head[0], head[1])
	}
	var pairs []Pair
	for i := range folds * per * 2 {
		f, err := next()
		if err != nil {
			return nil, fmt.Errorf("line %d: the protocol ends after %d of %d pairs: %w", line, i, folds*per*2, err)
		}
		p, err := parsePair(f, i%(2*per) < per)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		p.Fold, p.position = i/(2*per), i
		pairs = append(pairs, p)
	}
	if f, err := next(); err == nil {
		return nil, fmt.Errorf("line %d: %q behind the last pair", line, strings.Join(f, " "))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("behind line %d: %w", line, err)
	}
	return pairs, nil
}

func parsePair(f []string, mated bool) (Pair, error) {
	p := Pair{Mated: mated}
	if mated && len(f) == 3 {
		f = []string{f[0], f[1], f[0], f[2]}
	} else if mated || len(f) != 4 {
		return p, fmt.Errorf("%q is not a pair of the kind expected here (mated: %v)", strings.Join(f, " "), mated)
	}
	var err1, err2 error
	p.A, p.B = f[0], f[2]
	p.IA, err1 = strconv.Atoi(f[1])
	p.IB, err2 = strconv.Atoi(f[3])
	if err1 != nil || err2 != nil || p.IA < 1 || p.IB < 1 || !plain(p.A) || !plain(p.B) {
		return p, fmt.Errorf("%q: pictures are numbered from 1, names are those of folders", strings.Join(f, " "))
	}
	return p, nil
}

// plain reports whether name stays inside the folder that it is looked up in.
func plain(name string) bool {
	return name != "." && name != ".." && !strings.ContainsAny(name, "/\\")
}
