package config

import (
	"fmt"
	"time"
)

// Partners are the sensors that others name as their infra-red camera, which decide nothing by themselves.
func Partners(list []Sensor) map[string]bool {
	partners := map[string]bool{}
	for _, s := range list {
		if s.Infrared != "" {
			partners[s.Infrared] = true
		}
	}
	return partners
}

// pairs checks which cameras belong together.
func (v *validator) pairs(list []Sensor) {
	byName, taken := map[string]*Sensor{}, map[string]bool{}
	for i := range list {
		byName[list[i].Name] = &list[i]
	}
	for i := range list {
		s, key := &list[i], fmt.Sprintf("sensors[%d].infrared", i)
		v.require(s.InfraredWithin == 0 || s.Infrared != "" && s.InfraredWithin >= Duration(time.Millisecond) && s.InfraredWithin <= Duration(time.Second),
			key+"_within", "%v: 1ms to 1s, beside infrared, or left out", time.Duration(s.InfraredWithin))
		if s.Infrared == "" {
			continue
		}
		p := byName[s.Infrared]
		v.require(p != nil && p != s && p.Driver == DriverV4L2 && p.Infrared == "", key, "%q: another sensor of the driver %q, with no infrared of its own", s.Infrared, DriverV4L2)
		v.require(!taken[s.Infrared], key, "%q is the infra-red camera of two sensors", s.Infrared)
		taken[s.Infrared] = true
	}
}
