// Package result is what the guest of the lab says to its host: one line of JSON a case, on a serial port. It blocks on
// and owns nothing.
package result

// Row is the outcome of one case.
type Row struct {
	Suite string  `json:"suite"`
	Case  string  `json:"case"`
	OK    bool    `json:"ok"`
	Skip  bool    `json:"skip,omitempty"`
	Note  string  `json:"note"` // figures, or what went wrong
	Secs  float64 `json:"secs"`
}

// Prefix begins a line that holds a Row; other lines are for people.
const Prefix = "LAB "

// Done is the line behind the last row.
const Done = "LAB-DONE"
