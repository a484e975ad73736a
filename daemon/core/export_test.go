package core

import (
	"context"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/infer/face"
	"vigil/sensors"
)

// FramePath gives tests and benchmarks the way of a frame through the appliance, from a captured frame to the decision
// that nothing is to be announced, without the source in front of it.
func (a *Appliance) FramePath() func(ctx context.Context, f *sensors.Frame) {
	s := &sensor{
		app: a, cfg: config.Sensor{Name: "bench"}, tracker: decide.NewTracker(&a.policy, a.pipe.Dimension()),
		seen: make([]decide.Observation, 0, face.MaxFaces), events: make([]decide.Event, 0, face.MaxFaces),
	}
	return s.frame
}
