package core

import (
	"vigil/daemon/config"
	"vigil/sensors/uart"
)

// uartTiming is that of real modules; tests play faster ones.
var uartTiming uart.Timing

func openUART(c config.Sensor) (*uart.Source, error) {
	return uart.Open(uart.Options{
		Name: c.Name, Path: c.Path, Baud: c.Baud, Password: uint32(c.Password), Width: c.Width, Height: c.Height, Light: c.Light,
		Timing: uartTiming,
	})
}
