package config

import "slices"

// fprint checks a reader of fprintd, which gives no pictures.
func (v *validator) fprint(key string, s *Sensor) {
	if s.Driver != DriverFprint {
		return
	}
	v.require(s.Modality == "finger", key+".modality", "%q: the driver fprint reads fingers: \"finger\"", s.Modality)
	v.require(s.DPI == 0 && s.Rate == 0 && s.Speed == 0 && s.Width == 0 && s.Height == 0 && !s.Step && !s.Loop && s.Repeat == 0, key+".driver",
		"the driver fprint gives no pictures: only name, modality and path, which is the socket of a message bus")
}

// second checks that the second factor is one.
func (v *validator) second(p *Policy, list []Sensor) {
	is := func(s Sensor) bool { return s.Name == p.SecondFactor && s.Driver == DriverFprint }
	v.require(p.SecondFactor == "" || slices.ContainsFunc(list, is), "policy.second_factor", "%q: the name of a sensor of the driver fprint", p.SecondFactor)
}
