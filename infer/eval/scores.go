package eval

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// idPair are two ids in order.
type idPair struct{ a, b string }

func pairOf(a, b string) idPair {
	if b < a {
		a, b = b, a
	}
	return idPair{a, b}
}

// ReadScores is the run of another system over a protocol, from its file of scores (see the package comment). Every
// comparison of the protocol must be in it; one with an empty score could not be made. Comparisons that the protocol does
// not have are passed over. Errors name the line.
func ReadScores(name string, p *Protocol, r io.Reader) (*Run, error) {
	scores, err := parseScores(r)
	if err != nil {
		return nil, err
	}
	run := &Run{Name: name, System: "scores from a file", Scores: make([]float64, len(p.Comparisons))}
	for i, c := range p.Comparisons {
		a, b := p.Samples[c.A].ID, p.Samples[c.B].ID
		v, ok := scores[pairOf(a, b)]
		if !ok {
			return nil, fmt.Errorf("no score of %s with %s: a file of scores must hold every comparison of the protocol; "+
				"leave the score empty where it could not be made", a, b)
		}
		run.Scores[i] = v
	}
	return run, nil
}

func parseScores(r io.Reader) (map[idPair]float64, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord, c.ReuseRecord = 3, true
	head, err := c.Read()
	if err != nil || head[0] != "a" || head[1] != "b" || head[2] != "score" {
		return nil, errors.New("line 1: a file of scores begins with the line \"a,b,score\"")
	}
	out := map[idPair]float64{}
	for {
		f, err := c.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		line, _ := c.FieldPos(0)
		v := NoScore
		if f[2] != "" {
			if v, err = strconv.ParseFloat(strings.TrimSpace(f[2]), 64); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("line %d: score %q is not a finite number", line, f[2])
			}
		}
		key := pairOf(strings.Clone(trimExt(f[0])), strings.Clone(trimExt(f[1])))
		if old, ok := out[key]; ok && old != v {
			return nil, fmt.Errorf("line %d: %s with %s has two scores", line, key.a, key.b)
		}
		if out[key] = v; len(out) > maxComparisons {
			return nil, fmt.Errorf("line %d: more than %d scores", line, maxComparisons)
		}
	}
}

// WriteScores writes a run in the format that ReadScores reads.
func WriteScores(w io.Writer, p *Protocol, run *Run) error {
	c := csv.NewWriter(w)
	if err := c.Write([]string{"a", "b", "score"}); err != nil {
		return err
	}
	for i, x := range p.Comparisons {
		text := ""
		if v := run.Scores[i]; v != NoScore {
			text = strconv.FormatFloat(v, 'g', -1, 64)
		}
		if err := c.Write([]string{p.Samples[x.A].ID, p.Samples[x.B].ID, text}); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// ReadPresentations is the run of another system over a list of presentations, from CSV with the header "path,score".
// Every presentation must be in it; an empty score is a non-response. Errors name the line.
func ReadPresentations(name string, list []Presentation, r io.Reader) (*LivenessRun, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = 2
	head, err := c.Read()
	if err != nil || head[0] != "path" || head[1] != "score" {
		return nil, errors.New("line 1: a file of liveness scores begins with the line \"path,score\"")
	}
	scores := map[string]float64{}
	for {
		f, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := c.FieldPos(0)
		v := NoScore
		if f[1] != "" {
			if v, err = strconv.ParseFloat(strings.TrimSpace(f[1]), 64); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("line %d: score %q is not a finite number", line, f[1])
			}
		}
		if _, ok := scores[f[0]]; ok {
			return nil, fmt.Errorf("line %d: %s has two scores", line, f[0])
		}
		if scores[f[0]] = v; len(scores) > maxPresentations {
			return nil, fmt.Errorf("line %d: more than %d presentations", line, maxPresentations)
		}
	}
	run := &LivenessRun{Name: name, System: "scores from a file", Scores: make([]float64, len(list))}
	for i, p := range list {
		v, ok := scores[p.ID]
		if !ok {
			return nil, fmt.Errorf("no score of %s: leave the score empty where there was no response", p.ID)
		}
		run.Scores[i] = v
	}
	return run, nil
}
