package quant

import (
	"context"
	"errors"
	"slices"
	"time"

	"vigil/infer"
)

// Race is the latency of two engines, measured in turns so that both meet the same disturbances.
type Race struct {
	Seconds [2]float64 // medians
	Ratio   float64    // median of first over second, run by run: how many times as fast the second is
	Low     float64    // quartiles of these ratios
	High    float64
	Runs    int
}

// mostWarmUps are run before anything is timed; fewer than are timed.
const mostWarmUps = 3

// RaceEngines runs both in turns, the one that begins changing every time. fill puts values into an input.
func RaceEngines(ctx context.Context, engines [2]infer.Engine, fill func(input []float32), runs int) (r *Race, err error) {
	var ios [2]infer.IO
	runs = max(runs, 1)
	for i, e := range engines {
		if ios[i], err = e.NewIO(); err != nil {
			break
		}
		fill(ios[i].Input(0))
	}
	defer func() {
		for _, io := range ios {
			if io != nil {
				err = errors.Join(err, io.Close())
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	var took [2][]float64
	var ratios []float64
	warmUps := min(mostWarmUps, runs-1)
	for k := range runs + warmUps {
		var pair [2]float64
		for j := range 2 {
			i := (j + k) % 2
			start := time.Now()
			if err := ios[i].Run(ctx); err != nil {
				return nil, err
			}
			pair[i] = time.Since(start).Seconds()
		}
		if k >= warmUps {
			took[0], took[1] = append(took[0], pair[0]), append(took[1], pair[1])
			ratios = append(ratios, pair[0]/pair[1])
		}
	}
	slices.Sort(ratios)
	r = &Race{Ratio: ratios[runs/2], Low: ratios[runs/4], High: ratios[runs*3/4], Runs: runs}
	for i := range took {
		slices.Sort(took[i])
		r.Seconds[i] = took[i][runs/2]
	}
	return r, nil
}
