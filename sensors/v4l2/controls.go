package v4l2

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"vigil/sensors/v4l2/internal/uapi"
)

// Profile is a set of controls by name, such as {"exposure_auto": 1, "exposure": 200}. The values are the driver's own
// units; ControlInfo says their range. exposure is in 100 µs; anti_flicker is 0 off, 1 50 Hz, 2 60 Hz, 3 auto;
// exposure_auto is 0 auto, 1 manual, 2 shutter priority, 3 aperture priority.
type Profile map[string]int

// controlIDs are the controls that can be set, by our name (linux/v4l2-controls.h).
var controlIDs = map[string]uint32{
	"brightness": 0x980900, "contrast": 0x980901, "white_balance_auto": 0x98090c, "gain_auto": 0x980912, "gain": 0x980913,
	"anti_flicker": 0x980918, "backlight_compensation": 0x98091c,
	"exposure_auto": 0x9a0901, "exposure": 0x9a0902, "exposure_auto_priority": 0x9a0903, "focus": 0x9a090a, "focus_auto": 0x9a090c,
}

// automatics are set before the others, because a driver refuses a value while its automatic is on.
var automatics = []string{"exposure_auto", "exposure_auto_priority", "gain_auto", "focus_auto", "white_balance_auto"}

// ControlNames lists the controls that a Profile may name, sorted.
func ControlNames() []string { return slices.Sorted(maps.Keys(controlIDs)) }

// ControlInfo is what the driver says of a control.
type ControlInfo struct {
	Name                        string `json:"name"`
	Min, Max, Step, Default, At int    // in the driver's units
	ReadOnly                    bool   `json:"read_only,omitempty"`
}

// Check says whether every name is known.
func (p Profile) Check() error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if controlIDs[name] == 0 {
			return fmt.Errorf("unknown camera control %q: one of %v", name, ControlNames())
		}
	}
	return nil
}

// order is the names of p, automatics first.
func (p Profile) order() []string {
	names := slices.Sorted(maps.Keys(p))
	slices.SortStableFunc(names, func(a, b string) int {
		return automatic(b) - automatic(a)
	})
	return names
}

func automatic(name string) int {
	if slices.Contains(automatics, name) {
		return 1
	}
	return 0
}

// apply sets all controls. One that the camera does not have, or refuses, is an error that names it; those behind it are
// set all the same.
func (p Profile) apply(n Node) error {
	var all []error
	for _, name := range p.order() {
		c := control{ID: controlIDs[name], Value: int32(p[name])}
		if err := ioctl(n, uapi.VidiocSCtrl, &c); err != nil {
			if errors.Is(err, unix.ENODEV) {
				return err
			}
			all = append(all, fmt.Errorf("control %s cannot be %d: %w%s", name, p[name], err, rangeOf(n, name)))
		}
	}
	return errors.Join(all...)
}

func rangeOf(n Node, name string) string {
	info, err := queryControl(n, name)
	if err != nil {
		return " (the camera does not have it: leave it out)"
	}
	return fmt.Sprintf(" (the camera takes %d to %d)", info.Min, info.Max)
}

func queryControl(n Node, name string) (ControlInfo, error) {
	q := queryCtrl{ID: controlIDs[name]}
	if err := ioctl(n, uapi.VidiocQueryCtrl, &q); err != nil {
		return ControlInfo{}, err
	}
	if q.Flags&uapi.CtrlFlagDisabled != 0 {
		return ControlInfo{}, unix.EINVAL
	}
	info := ControlInfo{
		Name: name, Min: int(q.Minimum), Max: int(q.Maximum), Step: int(q.Step), Default: int(q.Default),
		ReadOnly: q.Flags&uapi.CtrlFlagReadOnly != 0,
	}
	c := control{ID: q.ID}
	if err := ioctl(n, uapi.VidiocGCtrl, &c); err == nil {
		info.At = int(c.Value)
	}
	return info, nil
}

// controls lists those of our names that the camera has.
func controls(n Node) []ControlInfo {
	var all []ControlInfo
	for _, name := range ControlNames() {
		if info, err := queryControl(n, name); err == nil {
			all = append(all, info)
		}
	}
	return all
}

// maxProfileBytes bounds a saved profile.
const maxProfileBytes = 64 << 10

// Save writes the profile as JSON, whole or not at all.
func (p Profile) Save(path string) error {
	if err := p.Check(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".profile-*")
	if err != nil {
		return fmt.Errorf("cannot save the camera profile: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(append(text, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot save the camera profile: %w", err)
	}
	return nil
}

// LoadProfile reads what Save wrote.
func LoadProfile(path string) (Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the camera profile: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProfileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the camera profile: %w", err)
	}
	p, err := parseProfile(text)
	if err != nil {
		return nil, fmt.Errorf("camera profile %s: %w", path, err)
	}
	return p, nil
}

func parseProfile(text []byte) (Profile, error) {
	if len(text) > maxProfileBytes {
		return nil, fmt.Errorf("more than %d bytes", maxProfileBytes)
	}
	var p Profile
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	for name, v := range p {
		if v != int(int32(v)) {
			return nil, fmt.Errorf("control %s: %d is no 32-bit number", name, v)
		}
	}
	return p, p.Check()
}
