package core

import (
	"vigil/daemon/config"
	"vigil/sensors/uart"
)

// uartTiming is that of real modules; tests play faster ones.
var uartTiming uart.Timing

func openUART(c config.Sensor) (*uart.Source, error) {
	o, err := uartOptions(c)
	if err != nil {
		return nil, err
	}
	return uart.Open(o)
}
