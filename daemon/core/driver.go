package core

import (
	"vigil/sensors/uart"
	"vigil/sensors/v4l2"
)

// CameraStatus is what the driver of a camera counted since the sensor was opened.
type CameraStatus struct {
	Frames    uint64  `json:"frames"`    // handed out
	Lost      uint64  `json:"lost"`      // missing in the driver's sequence
	Starved   uint64  `json:"starved"`   // of those lost: the driver may have had no buffer, because the daemon was late
	LetGo     uint64  `json:"let_go"`    // given back unseen, because too few buffers would have been left to the driver
	Damaged   uint64  `json:"damaged"`   // marked by the driver, short or empty
	Restarts  uint64  `json:"restarts"`  // of the stream, without the device having gone
	Connects  uint64  `json:"connects"`  // times that the device was opened
	Unstamped uint64  `json:"unstamped"` // frames whose capture time is that of their arrival
	Rate      float64 `json:"rate"`      // frames per second that the camera says it makes
	Control   string  `json:"control,omitempty"`
}

func cameraStatus(c *v4l2.Source) *CameraStatus {
	if c == nil {
		return nil
	}
	s := c.Stats()
	return &CameraStatus{s.Frames, s.Lost, s.Starved, s.LetGo, s.Damaged, s.Restarts, s.Connects, s.Unstamped, s.Rate, s.Control}
}

// ModuleStatus is what became of the line to a fingerprint module since the sensor was opened.
type ModuleStatus struct {
	Baud     int               `json:"baud"`             // of the line; 0 while the module has not been found
	Touches  uint64            `json:"touches"`          // pictures handed out
	Lost     uint64            `json:"lost"`             // touches without a picture
	Commands uint64            `json:"commands"`         // sent
	Again    uint64            `json:"again"`            // commands and transfers that were asked for once more
	Damage   map[string]uint64 `json:"damage,omitempty"` // packets by what was wrong with them
}

func moduleStatus(m *uart.Source) *ModuleStatus {
	if m == nil {
		return nil
	}
	s := m.Stats()
	return &ModuleStatus{s.Baud, s.Touches, s.Lost, s.Commands, s.Again, s.Damage}
}
