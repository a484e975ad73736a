package sched

import (
	"context"
	"time"
)

// Class is how urgent a job is.
type Class uint8

// Classes, the most urgent first.
const (
	Sensor  Class = iota // a frame of a sensor: somebody stands there
	API                  // a request
	Bulk                 // work in the background
	Classes = 3          // how many there are
)

// String is the name of the class in metrics.
func (c Class) String() string {
	switch c {
	case Sensor:
		return "sensor"
	case API:
		return "api"
	}
	return "bulk"
}

// HeadStarts says how jobs age: a job is served in the order of its arrival plus its class's value. A request of the API
// yields to the frames that sensors bring within half a second after it and to no later one; bulk yields to both for five
// seconds. So whatever the load of the more urgent classes, the wait of a job is bounded by the queue it found plus what
// came within its class's head start.
var HeadStarts = [Classes]time.Duration{Sensor: 0, API: 500 * time.Millisecond, Bulk: 5 * time.Second}

type classKey struct{}

// WithClass is a context whose jobs are of the class.
func WithClass(ctx context.Context, c Class) context.Context {
	return context.WithValue(ctx, classKey{}, c)
}

// ClassOf is the class of a context; API if nobody said.
func ClassOf(ctx context.Context) Class {
	if c, ok := ctx.Value(classKey{}).(Class); ok && c < Classes {
		return c
	}
	return API
}
