package bus

import (
	"context"

	"vigil/sensors"
)

// tap is a source whose frames are published on their way.
type tap struct {
	src  sensors.Source
	ring *Ring
}

// Tap returns src with every frame that it delivers published in ring before it is handed out. It belongs in front of
// sensors.Newest, so that a reader sees every frame of the driver. Close closes src, not the ring: a source that is opened
// again goes on in the same ring.
func Tap(src sensors.Source, ring *Ring) sensors.Source { return &tap{src, ring} }

// Next implements sensors.Source.
func (t *tap) Next(ctx context.Context) (*sensors.Frame, error) {
	f, err := t.src.Next(ctx)
	if err == nil {
		t.ring.Publish(f)
	}
	return f, err
}

// Close implements sensors.Source.
func (t *tap) Close() error { return t.src.Close() }
