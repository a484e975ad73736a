package kernels

// Span is a run of neighbouring pixels: X0..X1-1 of row Y.
type Span struct{ Y, X0, X1 int32 }

// Moments are sums over the pixels of some spans: of their values, of the Laplacian (four times the value less its neighbours to
// the left, to the right, above and below, Step pixels away), and of the squares of both.
type Moments struct {
	Sum, Squares, Laplacian, LaplacianSquares float64
	Count                                     int
}

// Variance of the values, and of the Laplacian; 0 of none.
func (m *Moments) Variance() (values, laplacian float64) {
	if m.Count == 0 {
		return 0, 0
	}
	n := float64(m.Count)
	return m.Squares/n - (m.Sum/n)*(m.Sum/n), m.LaplacianSquares/n - (m.Laplacian/n)*(m.Laplacian/n)
}

// MomentsOf sums over the spans of a plane of w values a row. Spans that come closer to the edges than step are cut.
func MomentsOf(plane []float32, w int, spans []Span, step int) (m Moments) {
	h, down := len(plane)/w, step*w
	for _, s := range spans {
		if int(s.Y) < step || int(s.Y) >= h-step {
			continue
		}
		x0, x1 := max(int(s.X0), step), min(int(s.X1), w-step)
		for i := int(s.Y)*w + x0; i < int(s.Y)*w+x1; i++ {
			v := plane[i]
			l := float64(4*v - plane[i-step] - plane[i+step] - plane[i-down] - plane[i+down])
			p := float64(v)
			m.Sum, m.Squares, m.Laplacian, m.LaplacianSquares = m.Sum+p, m.Squares+p*p, m.Laplacian+l, m.LaplacianSquares+l*l
			m.Count++
		}
	}
	return m
}

// Levels turns normalised values back into levels of 0 to 255, and those into a sum over the channels: level c of channel c counts
// Table[c][level], where level is the value times Scale[c] plus Offset[c], cut off and limited to 0..255.
type Levels struct {
	Scale, Offset [3]float32
	Table         [3][256]float32
}

// Luminance writes the summed levels of the pixels of the spans, one after another, cut off and limited to 0..255, and returns how
// many they are. planes holds three channels of rows of w values; dst has room for all. Spans that leave the planes panic.
func (l *Levels) Luminance(dst []byte, planes []float32, w int, spans []Span) (n int) {
	size := len(planes) / 3
	for _, s := range spans {
		for i := int(s.Y)*w + int(s.X0); i < int(s.Y)*w+int(s.X1); i++ {
			sum := float32(0)
			for c := range 3 {
				v := planes[c*size:][:size][i]*l.Scale[c] + l.Offset[c]
				sum += l.Table[c][int(max(0, min(255, v)))]
			}
			dst[n] = byte(max(0, min(255, sum)))
			n++
		}
	}
	return n
}

// Histogram adds the bytes to the counts.
func Histogram(counts *[256]uint32, bytes []byte) {
	for _, v := range bytes {
		counts[v]++
	}
}
