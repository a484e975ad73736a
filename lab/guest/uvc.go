package main

import (
	"encoding/binary"

	"vigil/sensors"
)

// Sizes of the USB camera's pictures in pixels, and their rate.
const (
	uvcWidth, uvcHeight = 320, 240
	uvcRate             = 15
	maxPayload          = 16384 // bytes with the header: what uvcvideo puts into one transfer
	uvcProduct          = "Vigil Lab Camera"
	uvcVendorID         = 0x1d6b
	uvcProductID        = 0x0102
)

func deviceDescriptor() []byte {
	return []byte{
		18, 1, 0, 2, 0xef, 2, 1, 64, uvcVendorID & 0xff, uvcVendorID >> 8, uvcProductID & 0xff, uvcProductID >> 8, 0, 1, 0, 2, 1, 1,
	}
}

// frameBytes is the size of a picture; for MJPEG the most that one has.
func frameBytes(f sensors.Format) int {
	switch f {
	case sensors.YUYV, sensors.MJPEG:
		return 2 * uvcWidth * uvcHeight
	case sensors.NV12:
		return uvcWidth * uvcHeight * 3 / 2
	}
	return uvcWidth * uvcHeight
}

// configuration is a camera with one format of one size over one bulk endpoint.
func configuration(f sensors.Format, packet uint16) []byte {
	le := binary.LittleEndian
	frame := []byte{30, 0x24, 5, 1, 0}
	frame = le.AppendUint16(frame, uvcWidth)
	frame = le.AppendUint16(frame, uvcHeight)
	frame = le.AppendUint32(frame, uint32(8*uvcRate*frameBytes(f)))
	frame = le.AppendUint32(frame, uint32(8*uvcRate*frameBytes(f)))
	frame = le.AppendUint32(frame, uint32(frameBytes(f)))
	frame = le.AppendUint32(frame, 10_000_000/uvcRate)
	frame = append(frame, 1)
	frame = le.AppendUint32(frame, 10_000_000/uvcRate)
	var format []byte
	if f == sensors.MJPEG {
		frame[2] = 7
		format = []byte{11, 0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0}
	} else {
		code := map[sensors.Format]string{sensors.YUYV: "YUY2", sensors.NV12: "NV12", sensors.Gray8: "Y800"}[f]
		bits := byte(8 * frameBytes(f) / (uvcWidth * uvcHeight))
		format = append([]byte{27, 0x24, 4, 1, 1}, code...)
		format = append(format, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71, bits, 1, 0, 0, 0, 0)
	}
	input := []byte{14, 0x24, 1, 1, 0, 0, 0x81, 0, 2, 0, 0, 0, 1, 0}
	le.PutUint16(input[4:], uint16(len(input)+len(format)+len(frame)))

	c := []byte{9, 2, 0, 0, 2, 1, 0, 0xc0, 50}
	c = append(c, 8, 11, 0, 2, 14, 3, 0, 0)   // both interfaces are one function
	c = append(c, 9, 4, 0, 0, 0, 14, 1, 0, 0) // VideoControl
	c = append(c, 13, 0x24, 1, 0, 1, 40, 0, 0, 0x6c, 0xdc, 2, 1, 1)
	c = append(c, 18, 0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0) // camera
	c = append(c, 9, 0x24, 3, 2, 1, 1, 0, 1, 0)                             // to the bus
	c = append(c, 9, 4, 1, 0, 1, 14, 2, 0, 0)                               // VideoStreaming
	c = append(c, input...)
	c = append(c, format...)
	c = append(c, frame...)
	c = append(c, endpoint(packet)...)
	le.PutUint16(c[2:], uint16(len(c)))
	return c
}

func endpoint(packet uint16) []byte {
	return []byte{7, 5, 0x81, 2, byte(packet), byte(packet >> 8), 0}
}
