package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"vigil/sensors/synth"
)

// synthOptions are the flags of `vigild synth`.
type synthOptions struct {
	out                  string
	fingers, impressions int
	seed                 uint64
	severity             string
	width, height        int
	dpi                  []float64
	ridges               bool
	workers              int
}

// maxSynthPictures bounds one call.
const maxSynthPictures = 1 << 20

func (a *app) synthCommand() *cobra.Command {
	var o synthOptions
	c := &cobra.Command{
		Use:   "synth --out DIR",
		Short: "Make fingerprints of nobody, with their truth beside them",
		Long: "Write synthetic fingerprints: FINGER_TOUCH.png (8-bit grey) and FINGER_TOUCH.json with the minutiae,\n" +
			"the orientation of the ridges in cells of 8 pixels, the mask and the transform to the whole finger.\n" +
			"Two files of one FINGER show the same finger; minutiae of one id are the same minutia.\n" +
			"The same flags give the same files on every machine. Needs no provisioned device.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError(c, "%w", err)
			}
			return a.synth(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "folder to write to; made if it is not there")
	f.IntVar(&o.fingers, "fingers", 10, "how many fingers")
	f.IntVar(&o.impressions, "impressions", 8, "how many impressions of each")
	f.Uint64Var(&o.seed, "seed", 1, "of the first finger; the next have the seeds behind it")
	f.StringVar(&o.severity, "severity", "normal", "easy, normal, hard, or mixed: drawn for each impression")
	f.IntVar(&o.width, "width", 352, "pixels")
	f.IntVar(&o.height, "height", 416, "pixels")
	f.Float64SliceVar(&o.dpi, "dpi", []float64{500}, "resolution; two values MIN,MAX draw one for each impression")
	f.BoolVar(&o.ridges, "ridges", false, "write FINGER_TOUCH.ridges.png too: the same touch, clean and noiseless")
	f.IntVar(&o.workers, "workers", runtime.NumCPU(), "fingers made at once")
	return c
}

func (o *synthOptions) check() error {
	switch {
	case o.out == "":
		return errors.New("synth needs --out")
	case o.fingers < 1 || o.impressions < 1 || o.fingers > maxSynthPictures/o.impressions:
		return fmt.Errorf("--fingers times --impressions is 1 to %d", maxSynthPictures)
	case len(o.dpi) != 1 && len(o.dpi) != 2:
		return errors.New("--dpi takes one value or MIN,MAX")
	case !slices.Contains(severities, o.severity):
		return fmt.Errorf("--severity is one of %v", severities)
	case o.workers < 1 || o.workers > 1024:
		return errors.New("--workers is 1 to 1024")
	}
	im := o.impression(0, 0)
	return im.Check()
}

var severities = []string{"easy", "normal", "hard", "mixed"}

// impression returns the options of one touch. What is drawn here depends on nothing but finger and touch.
func (o *synthOptions) impression(finger, touch uint64) synth.ImpressionOptions {
	r := rand.New(rand.NewPCG(finger, touch))
	s := synth.Severity(slices.Index(severities, o.severity))
	if o.severity == "mixed" {
		s = synth.Severity(r.IntN(3))
	}
	im := synth.Preset(s)
	im.Width, im.Height, im.DPI = o.width, o.height, o.dpi[0]
	if len(o.dpi) == 2 {
		im.DPI += r.Float64() * (o.dpi[1] - o.dpi[0])
	}
	if o.severity == "mixed" && r.IntN(2) == 0 { // a large finger on a small sensor
		im.ContactMM = synth.Range{Min: 14, Max: 19}
	}
	if o.severity == "mixed" && r.IntN(4) == 0 { // wrinkled skin
		im.Scars = synth.Range{Min: 4, Max: 14}
	}
	if o.severity == "mixed" && r.IntN(4) == 0 { // skin dragged and twisted
		im.TractionMM, im.TorqueDegrees = synth.Range{Min: 0.3, Max: 1}, synth.Range{Min: -10, Max: 10}
		im.WobbleMM = synth.Range{Min: 0.1, Max: 0.3}
	}
	return im
}

// skin returns the options of one finger.
func (o *synthOptions) skin(finger uint64) synth.Options {
	if o.severity == "mixed" && finger%2 == 0 {
		return synth.Options{Pores: synth.Range{Min: 0.2, Max: 1}, Period: synth.Range{Min: 7.4, Max: 10.6}}
	}
	return synth.Options{}
}

// clean returns the options of the same touch by a perfect finger on a perfect sensor: the place stays, the rest goes.
func clean(o synth.ImpressionOptions) synth.ImpressionOptions {
	zero := synth.Range{}
	o.Pressure, o.Moisture, o.Scars, o.Residue, o.Shading, o.Noise = zero, zero, zero, zero, zero, zero
	o.Background, o.Contrast, o.Blur = synth.Range{Min: 255, Max: 255}, synth.Range{Min: 1, Max: 1}, synth.Range{Min: 0.6, Max: 0.6}
	return o
}

// synthReport is the result of `vigild synth`.
type synthReport struct {
	Folder   string  `json:"folder"`
	Fingers  int     `json:"fingers"`
	Pictures int     `json:"pictures"`
	Seconds  float64 `json:"seconds"`
}

func (a *app) synth(ctx context.Context, o synthOptions) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for the pictures: %w", err)
	}
	start := time.Now()
	total := o.fingers * o.impressions
	progress := newProgress(a.env.Stderr, "pictures")
	var next, done atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(o.workers, o.fingers) {
		group.Go(func() error {
			g := synth.NewGenerator()
			for n := next.Add(1) - 1; n < int64(o.fingers); n = next.Add(1) - 1 {
				if err := o.finger(ctx, g, o.seed+uint64(n), func() { done.Add(1) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	finished := make(chan error, 1)
	go func() { finished <- group.Wait() }()
	tick := time.NewTicker(progressTTY)
	defer tick.Stop()
	for {
		select {
		case err := <-finished:
			if err != nil {
				return err
			}
			progress.update(total, total)
			r := synthReport{o.out, o.fingers, total, time.Since(start).Seconds()}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "%d pictures of %d fingers of nobody in %s, in %.1f s\n", r.Pictures, r.Fingers, r.Folder, r.Seconds)
			})
		case <-tick.C:
			progress.update(int(done.Load()), total)
		}
	}
}

// finger makes all impressions of one finger.
func (o *synthOptions) finger(ctx context.Context, g *synth.Generator, seed uint64, done func()) error {
	f, err := g.Finger(seed, o.skin(seed))
	if err != nil {
		return err
	}
	var im synth.Impression
	for t := range uint64(o.impressions) {
		if err := ctx.Err(); err != nil {
			return err
		}
		options := o.impression(seed, t)
		if err := g.Impression(f, t, options, &im); err != nil {
			return err
		}
		name := filepath.Join(o.out, fmt.Sprintf("%d_%d", seed, t))
		truth, err := json.Marshal(&im.Truth)
		if err != nil {
			return err
		}
		if err := errors.Join(writeGray(name+".png", &im), os.WriteFile(name+".json", truth, 0o644)); err != nil {
			return fmt.Errorf("cannot write a synthetic picture: %w", err)
		}
		if o.ridges {
			if err := g.Impression(f, t, clean(options), &im); err != nil {
				return err
			}
			if err := writeGray(name+".ridges.png", &im); err != nil {
				return fmt.Errorf("cannot write a synthetic picture: %w", err)
			}
		}
		done()
	}
	return nil
}

func writeGray(path string, im *synth.Impression) error {
	var b bytes.Buffer
	e := png.Encoder{CompressionLevel: png.BestSpeed}
	err := e.Encode(&b, &image.Gray{Pix: im.Gray, Stride: im.Width, Rect: image.Rect(0, 0, im.Width, im.Height)})
	if err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
