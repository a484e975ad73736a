package infer

import "time"

// Timing is how long one stage took for one frame.
type Timing struct {
	Stage    string
	Took     time.Duration
	Deadline time.Duration
}

// Late reports whether the stage was over its budget.
func (t Timing) Late() bool { return t.Took > t.Deadline }
