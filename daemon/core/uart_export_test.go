package core

import "vigil/sensors/uart"

// SetUARTTiming is for modules that are played faster than real ones. Call it before sensors are added.
func SetUARTTiming(t uart.Timing) { uartTiming = t }
