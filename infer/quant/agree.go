package quant

import (
	"context"
	"errors"
	"fmt"
	"math"

	"vigil/infer"
)

// Agreement is how alike two engines of the same tensors answer.
type Agreement struct {
	Cosine  float64 // mean over samples and outputs
	Worst   float64 // lowest over samples, of their mean over outputs
	SQNR    float64 // dB, over everything
	Samples int
}

// Agree runs both engines on the samples and compares the outputs of the second with those of the first.
func Agree(ctx context.Context, engines [2]infer.Engine, outputs int, samples Samples) (a Agreement, err error) {
	var ios [2]infer.IO
	defer func() {
		for _, io := range ios {
			if io != nil {
				err = errors.Join(err, io.Close())
			}
		}
	}()
	for i, e := range engines {
		if ios[i], err = e.NewIO(); err != nil {
			return a, err
		}
	}
	signal, noise := 0.0, 0.0
	a.Worst, a.Samples = 1, samples.Len()
	for k := range samples.Len() {
		if err := samples.Fill(ctx, k, ios[0].Input(0)); err != nil {
			return a, fmt.Errorf("sample %d: %w", k, err)
		}
		copy(ios[1].Input(0), ios[0].Input(0))
		if err := errors.Join(ios[0].Run(ctx), ios[1].Run(ctx)); err != nil {
			return a, err
		}
		mean := 0.0
		for o := range outputs {
			x, y := ios[0].Output(o), ios[1].Output(o)
			mean += Cosine(x, y) / float64(outputs)
			for i := range x {
				d := float64(x[i]) - float64(y[i])
				signal += float64(x[i]) * float64(x[i])
				noise += d * d
			}
		}
		a.Cosine += mean / float64(samples.Len())
		a.Worst = min(a.Worst, mean)
	}
	a.SQNR = ratioDB(signal, noise)
	return a, nil
}

// Cosine is the similarity of two vectors; two of no length are alike.
func Cosine(x, y []float32) float64 {
	var dot, nx, ny float64
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		dot, nx, ny = dot+a*b, nx+a*a, ny+b*b
	}
	switch {
	case nx == 0 && ny == 0:
		return 1
	case nx == 0 || ny == 0:
		return 0
	}
	return dot / math.Sqrt(nx*ny)
}

// mostDB stands for "no noise at all"; JSON has no infinity.
const mostDB = 200

// ratioDB is a ratio of powers in decibel.
func ratioDB(signal, noise float64) float64 {
	if noise <= 0 {
		return mostDB
	}
	return math.Min(mostDB, math.Max(-mostDB, 10*math.Log10(signal/noise)))
}
