package finger_test

import (
	"math"
	"os"
	"slices"
	"testing"

	"vigil/infer/finger"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// fingerprint is a grey picture of a finger.
type fingerprint struct {
	w, h int
	gray []byte
}

// read decodes a picture of a print.
func read(t *testing.T, path string) fingerprint {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := picture.Decode(t.Context(), sensors.NewPool(1), data)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	g := fingerprint{f.Width, f.Height, make([]byte, f.Width*f.Height)}
	for i := range g.gray {
		g.gray[i] = f.Planes[0].Data[3*i]
	}
	return g
}

func (g fingerprint) at(x, y int) byte {
	return g.gray[min(max(y, 0), g.h-1)*g.w+min(max(x, 0), g.w-1)]
}

// mapped makes a picture of the same size.
func (g fingerprint) mapped(f func(x, y int) byte) fingerprint {
	out := fingerprint{g.w, g.h, make([]byte, len(g.gray))}
	for i := range out.gray {
		out.gray[i] = f(i%g.w, i/g.w)
	}
	return out
}

// background is the level of the empty reader.
func (g fingerprint) background() byte {
	all := slices.Clone(g.gray)
	slices.Sort(all)
	return all[len(all)*98/100]
}

// ranked takes the darkest or the brightest pixel within a radius.
func (g fingerprint) ranked(radius float64, darkest bool) fingerprint {
	n := int(math.Ceil(radius))
	return g.mapped(func(x, y int) byte {
		v := g.at(x, y)
		for j := -n; j <= n; j++ {
			for i := -n; i <= n; i++ {
				if float64(i*i+j*j) > radius*radius {
					continue
				}
				if u := g.at(x+i, y+j); darkest {
					v = min(v, u)
				} else {
					v = max(v, u)
				}
			}
		}
		return v
	})
}

// dry makes ridges thin and breaks them, more with k from 0 to 3.
func (g fingerprint) dry(k float64) fingerprint {
	thin, bg := g.ranked(min(k, 2), false), float64(g.background())
	return thin.mapped(func(x, y int) byte {
		t := 1 / (1 + math.Exp((noise(x, y)-0.2*k)/0.05))
		if k == 0 {
			t = 0
		}
		return byte(float64(thin.at(x, y))*(1-t) + bg*t)
	})
}

// wet makes ridges thick and lets them run together, more with k from 0 to 4.
func (g fingerprint) wet(k float64) fingerprint {
	thick := g.ranked(k, true)
	return thick.mapped(func(x, y int) byte {
		sum := 4 * int(thick.at(x, y))
		for _, d := range [][2]int{{1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
			sum += int(thick.at(x+d[0], y+d[1]))
		}
		return byte(sum / 8)
	})
}

// faint keeps this part of the contrast.
func (g fingerprint) faint(part float64) fingerprint {
	bg := float64(g.background())
	return g.mapped(func(x, y int) byte { return byte(bg + part*(float64(g.at(x, y))-bg)) })
}

// partial keeps the middle of the picture, this part of its area.
func (g fingerprint) partial(part float64) fingerprint {
	side, bg := math.Sqrt(part)/2, g.background()
	w, h := float64(g.w), float64(g.h)
	return g.mapped(func(x, y int) byte {
		if math.Abs(float64(x)-w/2) > side*w || math.Abs(float64(y)-h/2) > side*h {
			return bg
		}
		return g.at(x, y)
	})
}

// shifted moves the finger to the right by this part of the picture.
func (g fingerprint) shifted(part float64) fingerprint {
	by, bg := int(part*float64(g.w)), g.background()
	return g.mapped(func(x, y int) byte {
		if x < by {
			return bg
		}
		return g.at(x-by, y)
	})
}

// noise is smooth, of 0 to 1, about three pixels wide.
func noise(x, y int) float64 {
	const width = 3
	fx, fy := float64(x)/width, float64(y)/width
	ix, iy := int(fx), int(fy)
	tx, ty := fx-float64(ix), fy-float64(iy)
	return (dice(ix, iy)*(1-tx)+dice(ix+1, iy)*tx)*(1-ty) + (dice(ix, iy+1)*(1-tx)+dice(ix+1, iy+1)*tx)*ty
}

func dice(x, y int) float64 {
	u := uint32(x)*73856093 ^ uint32(y)*19349663
	u ^= u >> 13
	u *= 0x5bd1e995
	u ^= u >> 15
	return float64(u%1000) / 1000
}

// process looks at a print of 500 pixels per inch.
func process(t *testing.T, p *finger.Pipeline, r *finger.Result, g fingerprint) {
	t.Helper()
	if err := p.Process(t.Context(), gray(g.w, g.h, g.gray), 500, r); err != nil {
		t.Fatal(err)
	}
}
