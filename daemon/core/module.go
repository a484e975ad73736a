package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"vigil/daemon/config"
	"vigil/sensors/uart"
)

// ModuleChange is what is to be different at a fingerprint module; see uart.Change.
type ModuleChange struct {
	Baud     int
	Password *uint32
}

// ModuleInfo is what a fingerprint module says of itself.
type ModuleInfo struct {
	Sensor          string `json:"sensor"`
	Baud            int    `json:"baud"`
	PacketBytes     int    `json:"packet_bytes"`
	Capacity        int    `json:"capacity"` // templates it could keep; none is kept there
	Address         string `json:"address"`
	PasswordChanged bool   `json:"password_changed,omitempty"`
	BaudChanged     bool   `json:"baud_changed,omitempty"`
}

// ConfigureModule asks and changes the module of a sensor with the driver uart. The sensors must not be running (before
// Start), because a port has one user. A change is audited before it is made; the password is in no log. Errors: ErrNoSensor,
// those of uart.Configure.
func (a *Appliance) ConfigureModule(ctx context.Context, sensor string, change ModuleChange) (info ModuleInfo, err error) {
	c, err := a.sensorConfig(sensor)
	if err != nil {
		return info, err
	}
	if c.Driver != config.DriverUART {
		return info, fmt.Errorf("sensor %s has the driver %s: only a module at a serial port (%s) can be set", sensor, c.Driver, config.DriverUART)
	}
	o, err := uartOptions(c)
	if err != nil {
		return info, err
	}
	before, err := uart.Configure(ctx, o, uart.Change{})
	if err != nil {
		return info, err
	}
	p := before
	if change.Baud != 0 || change.Password != nil {
		detail := map[string]any{"sensor": sensor, "baud": before.Baud, "new_password": change.Password != nil}
		if change.Baud != 0 {
			detail["new_baud"] = change.Baud
		}
		if err := a.audit(ctx, "module changed", "", detail, true); err != nil {
			return info, err
		}
		if p, err = uart.Configure(ctx, o, uart.Change(change)); err != nil {
			return info, err
		}
	}
	return ModuleInfo{
		Sensor: sensor, Baud: p.Baud, PacketBytes: p.PacketBytes, Capacity: p.Capacity, Address: fmt.Sprintf("%08x", p.Address),
		PasswordChanged: change.Password != nil, BaudChanged: p.Baud != before.Baud,
	}, nil
}

// uartOptions are those of a configured module.
func uartOptions(c config.Sensor) (uart.Options, error) {
	o := uart.Options{
		Name: c.Name, Path: c.Path, Baud: c.Baud, Password: uint32(c.Password), Width: c.Width, Height: c.Height, Light: c.Light,
		Timing: uartTiming,
	}
	if c.PasswordFile == "" {
		return o, nil
	}
	info, err := os.Stat(c.PasswordFile)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s has mode %v: chmod 600: %w", c.PasswordFile, info.Mode().Perm(), fs.ErrPermission)
	}
	if err != nil {
		return o, fmt.Errorf("password of the module: %w", err)
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return o, fmt.Errorf("password of the module: %w", err)
	}
	defer clear(text)
	if o.Password, err = ParseModulePassword(text); err != nil {
		return o, fmt.Errorf("password of the module: %s: %w", c.PasswordFile, err)
	}
	return o, nil
}

// ParseModulePassword reads a number of 32 bits, decimal or with 0x in front, with space around it. The error does not repeat
// what was read.
func ParseModulePassword(text []byte) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 32)
	if err != nil {
		return 0, errors.New("a password is one number of 32 bits, decimal, or hexadecimal behind 0x")
	}
	return uint32(n), nil
}
