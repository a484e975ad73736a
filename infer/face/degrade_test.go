package face_test

import (
	"math"

	"vigil/sensors"
)

// rotated turns a picture about a point.
func rotated(src *sensors.Frame, mx, my, degrees float64) *sensors.Frame {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	return changed(src, src.Width, src.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
		dx, dy := float64(x)-mx, float64(y)-my
		return px(int(mx+cos*dx-sin*dy), int(my+sin*dx+cos*dy))
	})
}

// cropped is the part of a picture from x0,y0 on, w x h pixels; what lies outside repeats its border.
func cropped(src *sensors.Frame, x0, y0, w, h int) *sensors.Frame {
	return changed(src, w, h, func(px func(x, y int) [3]float32, x, y int) [3]float32 { return px(x0+x, y0+y) })
}

// toned maps every value by a function of 0..1.
func toned(src *sensors.Frame, f func(v float64) float64) *sensors.Frame {
	var table [256]float32
	for i := range table {
		table[i] = float32(255 * max(0, min(1, f(float64(i)/255))))
	}
	return changed(src, src.Width, src.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
		v := px(x, y)
		return [3]float32{table[int(v[0])], table[int(v[1])], table[int(v[2])]}
	})
}

// exposed multiplies the light by a factor: the sensor is linear, the picture is not.
func exposed(src *sensors.Frame, factor float64) *sensors.Frame {
	return toned(src, func(v float64) float64 { return math.Pow(factor*math.Pow(v, 2.2), 1/2.2) })
}

// blurred is a Gaussian of this standard deviation in pixels, as two passes.
func blurred(src *sensors.Frame, sigma float64) *sensors.Frame {
	if sigma == 0 {
		return src
	}
	n := int(math.Ceil(3 * sigma))
	kernel := make([]float32, 2*n+1)
	var sum float32
	for i := range kernel {
		kernel[i] = float32(math.Exp(-float64((i-n)*(i-n)) / (2 * sigma * sigma)))
		sum += kernel[i]
	}
	pass := func(src *sensors.Frame, dx, dy int) *sensors.Frame {
		return changed(src, src.Width, src.Height, func(px func(x, y int) [3]float32, x, y int) (m [3]float32) {
			for i, k := range kernel {
				v := px(x+(i-n)*dx, y+(i-n)*dy)
				for c := range m {
					m[c] += v[c] * k / sum
				}
			}
			return m
		})
	}
	return pass(pass(src, 1, 0), 0, 1)
}

// scaled shrinks a picture by a factor of at least 1, each pixel the mean of those it covers.
func scaled(src *sensors.Frame, factor float64) *sensors.Frame {
	w, h := int(float64(src.Width)/factor), int(float64(src.Height)/factor)
	return changed(src, w, h, func(px func(x, y int) [3]float32, x, y int) (m [3]float32) {
		x0, x1 := int(float64(x)*factor), max(int(float64(x)*factor)+1, int(float64(x+1)*factor))
		y0, y1 := int(float64(y)*factor), max(int(float64(y)*factor)+1, int(float64(y+1)*factor))
		for j := y0; j < y1; j++ {
			for i := x0; i < x1; i++ {
				v := px(i, j)
				for c := range m {
					m[c] += v[c] / float32((x1-x0)*(y1-y0))
				}
			}
		}
		return m
	})
}

// shaded darkens what lies right of a column, softly.
func shaded(src *sensors.Frame, middle, factor float64) *sensors.Frame {
	return changed(src, src.Width, src.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
		t := 1 / (1 + math.Exp((middle-float64(x))/3))
		k := float32(math.Pow(1-t+t*factor, 1/2.2))
		v := px(x, y)
		return [3]float32{v[0] * k, v[1] * k, v[2] * k}
	})
}
