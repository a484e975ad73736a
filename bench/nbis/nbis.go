// Package nbis runs NIST's mindtct and bozorth3 (bench/nbis/setup builds them) over a protocol of fingerprint pictures,
// to stand beside our own system in a report.
//
// What is run is libfprint's copy of NBIS. It differs from NIST's release in that it can drop minutiae at the edge of the
// picture (off by default, and here), in two checks of return codes, and in its allocator; minutiae are pruned here as
// bozorth3 does (the 150 best by quality), which libfprint does not. An extraction that fails gives the non-match score 0
// in every comparison, and so do pictures with fewer than 10 minutiae, by bozorth3 itself.
//
// It starts processes, one per core, waits for them, and keeps its files in a temporary folder that it removes.
package nbis

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // formats of pictures
	_ "image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"vigil/infer/eval"
)

// Program is where bench/nbis/setup puts the program, from the root of the repository.
const Program = ".cache/nbis/nbis"

// Minutiae is how many of a print bozorth3 looks at, its default.
const Minutiae = 150

// Result is what NBIS made of a set: scores for any protocol over the same samples.
type Result struct {
	program  string
	dir      string
	samples  []eval.Sample
	xyt      []string // per sample; empty where the extraction failed
	failures []eval.Failure
	seconds  float64 // mean per sample, all cores busy
}

// Extract runs mindtct over the samples, whose pictures have the resolution ppi. Close the result.
func Extract(ctx context.Context, program string, samples []eval.Sample, ppi int) (_ *Result, err error) {
	dir, err := os.MkdirTemp("", "nbis-*")
	if err != nil {
		return nil, err
	}
	r := &Result{program: program, dir: dir, samples: samples, xyt: make([]string, len(samples))}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	var lines []string
	for i, s := range samples {
		pgm := filepath.Join(dir, fmt.Sprintf("%d.pgm", i))
		if err := writePGM(pgm, s.Path); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Path, err)
		}
		lines = append(lines, pgm+" "+filepath.Join(dir, fmt.Sprintf("%d.xyt", i)))
	}
	start := time.Now()
	answers, err := r.batch(ctx, lines, "minutiae", strconv.Itoa(ppi))
	if err != nil {
		return nil, err
	}
	r.seconds = time.Since(start).Seconds() / float64(max(1, len(samples)))
	for i, a := range answers {
		if reason, failed := strings.CutPrefix(a, "-1"); failed {
			r.failures = append(r.failures, eval.Failure{ID: samples[i].ID, Kind: "enrol", Reason: strings.TrimSpace(reason)})
			continue
		}
		r.xyt[i] = filepath.Join(dir, fmt.Sprintf("%d.xyt", i))
	}
	return r, nil
}

// Run compares as the protocol says, which must be over the samples of the result.
func (r *Result) Run(ctx context.Context, name string, p *eval.Protocol) (*eval.Run, error) {
	if len(p.Samples) != len(r.samples) {
		return nil, fmt.Errorf("%d samples in the protocol, %d extracted", len(p.Samples), len(r.samples))
	}
	run := &eval.Run{
		Name: name, System: "NIST mindtct + bozorth3 (libfprint's copy)", Failures: r.failures, Seconds: r.seconds,
		Scores: make([]float64, len(p.Comparisons)), // 0 where an extraction failed
	}
	var lines []string
	var which []int
	for i, c := range p.Comparisons {
		if a, b := r.xyt[c.A], r.xyt[c.B]; a != "" && b != "" {
			lines, which = append(lines, a+" "+b), append(which, i)
		}
	}
	answers, err := r.batch(ctx, lines, "match", strconv.Itoa(Minutiae))
	if err != nil {
		return nil, err
	}
	for k, a := range answers {
		v, err := strconv.Atoi(a)
		if err != nil || v < 0 {
			return nil, fmt.Errorf("%s: bozorth3 answered %q", lines[k], a)
		}
		run.Scores[which[k]] = float64(v)
	}
	return run, nil
}

// Close removes the temporary files.
func (r *Result) Close() error { return os.RemoveAll(r.dir) }

// batch gives each process an equal part of the lines and returns one answer per line.
func (r *Result) batch(ctx context.Context, lines []string, args ...string) ([]string, error) {
	n := min(runtime.NumCPU(), max(1, len(lines)))
	parts := make([][]string, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() { parts[k], errs[k] = r.one(ctx, lines[k*len(lines)/n:(k+1)*len(lines)/n], args) })
	}
	wg.Wait()
	var out []string
	for _, p := range parts {
		out = append(out, p...)
	}
	return out, errors.Join(errs...)
}

func (r *Result) one(ctx context.Context, lines, args []string) ([]string, error) {
	c := exec.CommandContext(ctx, r.program, args...)
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if len(lines) == 0 {
		c.Stdin = nil
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", r.program, err, strings.TrimSpace(stderr.String()))
	}
	var answers []string
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		answers = append(answers, s.Text())
	}
	if len(answers) != len(lines) {
		return nil, fmt.Errorf("%s: %d answers to %d lines", r.program, len(answers), len(lines))
	}
	return answers, nil
}

// writePGM converts a picture to 8-bit grey.
func writePGM(to, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	im, _, err := image.Decode(f)
	if err != nil {
		return err
	}
	b := im.Bounds()
	grey := image.NewGray(image.Rect(0, 0, b.Dx(), b.Dy()))
	for y := range b.Dy() {
		for x := range b.Dx() {
			grey.Set(x, y, im.At(b.Min.X+x, b.Min.Y+y))
		}
	}
	data := append(fmt.Appendf(nil, "P5\n%d %d\n255\n", b.Dx(), b.Dy()), grey.Pix...)
	return os.WriteFile(to, data, 0o600)
}
