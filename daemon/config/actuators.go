package config

import (
	"fmt"
	"path/filepath"
	"time"
)

// Actuator is one output that a match at a sensor moves.
type Actuator struct {
	Name   string `toml:"name"`
	Driver string `toml:"driver"` // ActuatorRelay, ActuatorWiegand, ActuatorOSDP
	Sensor string `toml:"sensor"` // whose matches are the grants: the identity
	// IntentSensor asks for a second condition: a match of the same person there within IntentWindow before or after, as a
	// sign of intent. Somebody who only passes a camera wants no door.
	IntentSensor string   `toml:"intent_sensor"`
	IntentWindow Duration `toml:"intent_window"` // 0 means 10s

	Chip      string   `toml:"chip"`       // relay and wiegand: GPIO chip, such as /dev/gpiochip0
	Line      int      `toml:"line"`       // relay
	ActiveLow bool     `toml:"active_low"` // of all lines
	Hold      Duration `toml:"hold"`       // relay: 0 means 3s

	D0       int   `toml:"d0"` // wiegand: lines
	D1       int   `toml:"d1"`
	Bits     int   `toml:"bits"` // wiegand and osdp: 26 or 34; 0 means 26
	Facility int64 `toml:"facility"`

	Path    string `toml:"path"`     // osdp: serial port of the RS-485 line
	Baud    int    `toml:"baud"`     // osdp: 0 means 9600
	Address int    `toml:"address"`  // osdp: 0 to 126
	KeyFile string `toml:"key_file"` // osdp: 32 hex digits, mode 0600; empty speaks in clear

	Card  int64            `toml:"card"`  // number of everybody who is not in Cards; 0: none
	Cards map[string]int64 `toml:"cards"` // numbers by subject id
}

// Values of Actuator.Driver.
const (
	ActuatorRelay   = "relay"
	ActuatorWiegand = "wiegand"
	ActuatorOSDP    = "osdp"
)

const maxActuators = 16

func (v *validator) actuators(list []Actuator, sensors []Sensor) {
	v.require(len(list) <= maxActuators, "actuators", "%d of them, at most %d", len(list), maxActuators)
	known, seen := map[string]bool{}, map[string]bool{}
	partners := Partners(sensors)
	for _, s := range sensors {
		known[s.Name] = s.Driver != DriverFprint && !partners[s.Name] // which decide nothing by themselves
	}
	for i := range list {
		a, key := &list[i], fmt.Sprintf("actuators[%d]", i)
		v.require(namePattern.MatchString(a.Name), key+".name", "%q: 1 to 63 of a-z, 0-9 and dash", a.Name)
		v.require(!seen[a.Name], key+".name", "%q is used twice", a.Name)
		seen[a.Name] = true
		v.oneOf(key+".driver", a.Driver, ActuatorRelay, ActuatorWiegand, ActuatorOSDP)
		v.require(known[a.Sensor], key+".sensor", "%q: no sensor has that name", a.Sensor)
		v.require(a.IntentSensor == "" || known[a.IntentSensor] && a.IntentSensor != a.Sensor, key+".intent_sensor",
			"%q: another sensor than %q", a.IntentSensor, a.Sensor)
		for name, d := range map[string]Duration{"intent_window": a.IntentWindow, "hold": a.Hold} {
			v.require(d == 0 || d >= Duration(10*time.Millisecond) && d <= Duration(10*time.Minute), key+"."+name,
				"%v: 10ms to 10m, or left out", time.Duration(d))
		}
		v.wires(key, a)
	}
}

// wires checks where an actuator is connected, and what it sends.
func (v *validator) wires(key string, a *Actuator) {
	if a.Driver == ActuatorOSDP {
		v.require(filepath.IsAbs(a.Path), key+".path", "%q must be an absolute path", a.Path)
		v.require(a.KeyFile == "" || filepath.IsAbs(a.KeyFile), key+".key_file", "%q must be an absolute path", a.KeyFile)
		v.require(a.Address >= 0 && a.Address <= 126, key+".address", "%d: 0 to 126", a.Address)
		v.require(a.Baud >= 0 && a.Baud <= 230400, key+".baud", "%d: 0 (9600) to 230400", a.Baud)
	} else {
		v.require(filepath.IsAbs(a.Chip), key+".chip", "%q must be an absolute path, such as /dev/gpiochip0", a.Chip)
		v.require(min(a.Line, a.D0, a.D1) >= 0, key+".line", "a line cannot be negative")
		v.require(a.Driver != ActuatorWiegand || a.D0 != a.D1, key+".d1", "the lines of data 0 and 1 are the same")
	}
	v.require(a.Bits == 0 || a.Bits == 26 || a.Bits == 34, key+".bits", "%d: 26 or 34", a.Bits)
	facility := int64(1 << 8)
	if a.Bits == 34 {
		facility = 1 << 16
	}
	v.require(a.Facility >= 0 && a.Facility < facility, key+".facility", "%d: 0 to %d", a.Facility, facility-1)
	v.require(a.Card >= 0 && a.Card < 1<<16, key+".card", "%d: 1 to 65535, or 0 for none", a.Card)
	for subject, n := range a.Cards {
		v.require(n > 0 && n < 1<<16, key+".cards."+subject, "%d: 1 to 65535", n)
	}
}
