package eval

// ReportFormat is the version of the JSON form of Report.
const ReportFormat = 1

// Report is the result of an evaluation: one section per protocol, in each all systems side by side.
type Report struct {
	Format     int       `json:"format"`
	Title      string    `json:"title"`
	Version    string    `json:"version"` // of the program that made it
	Created    string    `json:"created"` // RFC 3339
	Seed       uint64    `json:"seed"`
	Confidence float64   `json:"confidence"`
	Sections   []Section `json:"sections"`
}

// NewReport is a report without sections.
func NewReport(title, version, created string, seed uint64) *Report {
	return &Report{Format: ReportFormat, Title: title, Version: version, Created: created, Seed: seed, Confidence: Confidence}
}

// Section is the result of one protocol. Exactly one of Verification, Identification and Attack is there.
type Section struct {
	Name           string          `json:"name"` // unique in the report and fit for a file name
	Title          string          `json:"title"`
	Notes          []string        `json:"notes,omitempty"`
	Verification   *Verification   `json:"verification,omitempty"`
	Identification *Identification `json:"identification,omitempty"`
	Attack         *Attack         `json:"attack,omitempty"`
}

// Point is one operating point of a curve. X and Y are rates; what they are the curve says.
type Point struct {
	X         float64 `json:"x"`
	Y         float64 `json:"y"`
	Threshold float64 `json:"threshold"`
}

// Histogram counts scores in bins of equal width; a score on an edge falls into the bin above it, the last bin holds its
// upper edge too.
type Histogram struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	A    []int   `json:"mated"`     // bona fide in a liveness section
	B    []int   `json:"non_mated"` // attacks in a liveness section
}

// histogramBins is how many bins a histogram has.
const histogramBins = 48

// histogram of two lists of ascending scores; what is no score is left out.
func histogram(a, b []float64) Histogram {
	var h Histogram
	first := true
	for _, v := range [][]float64{a, b} {
		for _, x := range v {
			if x == NoScore {
				continue
			}
			if first {
				h.Low, h.High, first = x, x, false
			}
			h.Low, h.High = min(h.Low, x), max(h.High, x)
		}
	}
	fill := func(v []float64) []int {
		counts := make([]int, histogramBins)
		for _, x := range v {
			if x == NoScore {
				continue
			}
			i := 0
			if h.High > h.Low {
				i = min(histogramBins-1, int((x-h.Low)/(h.High-h.Low)*histogramBins))
			}
			counts[i]++
		}
		return counts
	}
	h.A, h.B = fill(a), fill(b)
	return h
}
