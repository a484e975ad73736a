package core

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// SensorStatus is what people see of a sensor.
type SensorStatus struct {
	Name      string `json:"name"`
	Driver    string `json:"driver"`
	Modality  string `json:"modality"`
	State     string `json:"state"` // running, failed, ended; unplugged, busy, swapped, fake, refused, denied, unsuited, stalled; unstable
	Reason    string `json:"reason,omitempty"`
	Frames    uint64 `json:"frames"`    // processed
	Dropped   uint64 `json:"dropped"`   // overwritten by a newer one before their turn
	Skipped   uint64 `json:"skipped"`   // broken pictures
	Malformed uint64 `json:"malformed"` // frames that the pipeline refused
	Stale     uint64 `json:"stale"`     // given up because they took longer than policy.frame_deadline
	// Unannounced counts strangers that are no decisions, because policy.audit_unknown is off.
	Unannounced uint64 `json:"unannounced"`
	// Guidance is what the largest face or finger of the latest frame should do, as a code ("come_closer"); empty where it is
	// good, or nobody is there.
	Guidance string `json:"guidance,omitempty"`
	// Copies is how often the pixels of the processed frames were copied on this machine before the models' input was made of
	// them: 0 for cameras that write into shared memory.
	Copies    uint64 `json:"copies"`
	Falls     uint64 `json:"falls"`               // times that the sensor stopped delivering
	Unaudited uint64 `json:"unaudited,omitempty"` // of these and of the recoveries, those left out of the audit log
	// Way is how long after its capture a frame was how far.
	Way    []Latency     `json:"way,omitempty"`
	Camera *CameraStatus `json:"camera,omitempty"` // of the driver v4l2
	Pair   *PairStatus   `json:"pair,omitempty"`   // of a camera with an infra-red camera beside it
	Module *ModuleStatus `json:"module,omitempty"` // of the driver uart
}

// note is told of every frame (running), of every trouble (err), of the end, and, with the state that it was, of time that
// passes. What is news of it is audited. A camera that is not the pinned one may be an attack, as may be one that is claimed
// by somebody else or taken away.
func (s *sensor) note(ctx context.Context, state string, err error) {
	s.mu.Lock()
	list := s.follow(time.Now(), state, err)
	s.set(state, err)
	s.mu.Unlock()
	for _, i := range list {
		i.detail["sensor"] = s.cfg.Name
		if err := s.app.audit(ctx, "sensor."+i.kind, "", i.detail, true); err != nil {
			s.app.log.Error("trouble of a sensor is not audited", "sensor", s.cfg.Name, "kind", i.kind, "err", err)
		}
	}
}

// follow tells the incidents. The caller holds the lock.
func (s *sensor) follow(now time.Time, state string, err error) []incident {
	i := &s.incidents
	if err != nil {
		before := i.falls
		list := i.fall(now, state, err.Error())
		s.told += i.falls - before
		return list
	}
	list := i.lost(now, s.hidden())
	switch state {
	case stateRunning:
		return append(list, i.frame(now)...)
	case stateEnded:
		return list
	}
	return append(list, i.calm(now)...)
}

// set changes the state that people see; no state is that of before. Trouble degrades the device. The caller holds the lock.
func (s *sensor) set(state string, err error) {
	if state == "" {
		state = s.base
	}
	if err != nil {
		s.reason = err.Error()
	}
	s.base = state
	shown := s.incidents.shown(time.Now(), state)
	if s.state == shown {
		return
	}
	s.state, s.advised = shown, ""
	part := "sensor " + s.cfg.Name
	if shown == stateRunning || shown == stateEnded {
		s.reason = ""
		s.app.health.recover(part)
		s.app.log.Info("sensor is "+shown, "sensor", s.cfg.Name)
		return
	}
	trouble := s.reason
	if shown == stateUnstable {
		trouble = fmt.Sprintf("unstable: it came and went %d times", s.incidents.falls)
		if s.reason != "" {
			trouble += ", the last time because " + s.reason
		}
	}
	s.app.health.degrade(part, errors.New(trouble))
	s.app.log.Error("sensor is "+shown, "sensor", s.cfg.Name, "err", trouble)
}

// status describes the sensor.
func (s *sensor) status() SensorStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SensorStatus{
		Name: s.cfg.Name, Driver: s.cfg.Driver, Modality: s.unit.kind, State: s.incidents.shown(time.Now(), s.base), Reason: s.reason, Frames: s.frames.Load(),
		Skipped: s.skipped.Load(), Malformed: s.malformed.Load(), Stale: s.stale.Load(), Unannounced: s.unannounced.Load(),
		Dropped: s.dropped, Guidance: s.advised, Copies: s.copies.Load(), Falls: s.incidents.falls, Unaudited: s.incidents.unaudited,
		Way: s.way.latencies(), Camera: cameraStatus(s.camera), Module: moduleStatus(s.module),
		Pair: s.pair.status(),
	}
	if s.newest != nil {
		st.Dropped += s.newest.Dropped()
	}
	return st
}
