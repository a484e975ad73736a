package core

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"sync"

	"vigil/daemon/config"
	"vigil/sensors"
	"vigil/sensors/bus"
)

// frameBus shares the frames of the sensors with other processes. Its zero value is off.
type frameBus struct {
	mu     sync.Mutex
	cfg    config.Bus
	server *bus.Server // nil: off
	rings  map[string]*bus.Ring
}

// BusStatus is what became of the sharing of frames.
type BusStatus struct {
	Socket string `json:"socket"`
	bus.ServerStats
	Rings map[string]bus.Stats `json:"rings"` // by sensor
}

// open begins to share, if the configuration says so.
func (b *frameBus) open(cfg *config.Bus) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cfg.Socket == "" {
		return nil
	}
	access, err := readers(cfg.Readers)
	if err != nil {
		return err
	}
	b.cfg, b.rings = *cfg, map[string]*bus.Ring{}
	b.server, err = bus.Serve(cfg.Socket, access)
	return err
}

// readers looks up who may read.
func readers(list []string) (a bus.Access, err error) {
	for _, who := range list {
		kind, name, _ := strings.Cut(who, ":")
		find, ids := userNumber, &a.Users
		if kind == "group" {
			find, ids = groupNumber, &a.Groups
		}
		id, err := find(name)
		if err != nil {
			return a, fmt.Errorf("cannot share frames with %s of bus.readers: %w", who, err)
		}
		*ids = append(*ids, id)
	}
	return a, nil
}

func userNumber(name string) (uint32, error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	return number(name, "user")
}

func groupNumber(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	return number(name, "group")
}

func number(name, kind string) (uint32, error) {
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("there is no such %s on this machine", kind)
	}
	return uint32(n), nil
}

// tap shares the frames of a source. A sensor that is opened again goes on in the ring that it had. It owns src until it
// returns it.
func (b *frameBus) tap(src sensors.Source, name string) (sensors.Source, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		return src, nil
	}
	r := b.rings[name]
	if r == nil {
		var err error
		if r, err = bus.New(bus.Options{Sensor: name, Slots: b.cfg.Slots, FrameBytes: b.cfg.FrameMiB << 20}); err != nil {
			return nil, errors.Join(err, src.Close())
		}
		b.rings[name] = r
		b.server.Add(r)
	}
	return bus.Tap(src, r), nil
}

// status is nil while nothing is shared.
func (b *frameBus) status() *BusStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		return nil
	}
	s := &BusStatus{Socket: b.cfg.Socket, ServerStats: b.server.Stats(), Rings: map[string]bus.Stats{}}
	for name, r := range b.rings {
		s.Rings[name] = r.Stats()
	}
	return s
}

// close ends the sharing and wipes what was shared.
func (b *frameBus) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		return nil
	}
	errs := []error{b.server.Close()}
	for _, r := range b.rings {
		errs = append(errs, r.Close())
	}
	b.server, b.rings = nil, nil
	return errors.Join(errs...)
}
