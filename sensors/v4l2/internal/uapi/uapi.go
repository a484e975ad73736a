// Package uapi is the kernel's interface to cameras, linux/videodev2.h, as 64-bit machines lay it out: for the driver, and for
// the kernel that its tests play.
//
// Promises: sizes, offsets and numbers are those of the header; a test of the driver compiles them beside it. It holds no
// state, asks nothing of the kernel and blocks on nothing.
package uapi

import "unsafe"

// ioc makes the number of an ioctl of the group 'V' (asm-generic/ioctl.h): direction, size, group, number.
func ioc(dir, nr, size uintptr) uintptr { return dir<<30 | size<<16 | 'V'<<8 | nr }

const (
	write = 1
	read  = 2
)

// Numbers of the requests.
var (
	VidiocQueryCap       = ioc(read, 0, unsafe.Sizeof(Capability{}))
	VidiocEnumFmt        = ioc(read|write, 2, unsafe.Sizeof(FmtDesc{}))
	VidiocSFmt           = ioc(read|write, 5, unsafe.Sizeof(Format{}))
	VidiocReqBufs        = ioc(read|write, 8, unsafe.Sizeof(RequestBuffers{}))
	VidiocQueryBuf       = ioc(read|write, 9, unsafe.Sizeof(Buffer{}))
	VidiocQBuf           = ioc(read|write, 15, unsafe.Sizeof(Buffer{}))
	VidiocExpBuf         = ioc(read|write, 16, unsafe.Sizeof(ExportBuffer{}))
	VidiocDQBuf          = ioc(read|write, 17, unsafe.Sizeof(Buffer{}))
	VidiocStreamOn       = ioc(write, 18, unsafe.Sizeof(int32(0)))
	VidiocStreamOff      = ioc(write, 19, unsafe.Sizeof(int32(0)))
	VidiocGParm          = ioc(read|write, 21, unsafe.Sizeof(StreamParm{}))
	VidiocSParm          = ioc(read|write, 22, unsafe.Sizeof(StreamParm{}))
	VidiocGCtrl          = ioc(read|write, 27, unsafe.Sizeof(Control{}))
	VidiocSCtrl          = ioc(read|write, 28, unsafe.Sizeof(Control{}))
	VidiocQueryCtrl      = ioc(read|write, 36, unsafe.Sizeof(QueryCtrl{}))
	VidiocEnumFrameSizes = ioc(read|write, 74, unsafe.Sizeof(FrmSizeEnum{}))
	VidiocEnumIntervals  = ioc(read|write, 75, unsafe.Sizeof(FrmIvalEnum{}))
	VidiocDQEvent        = ioc(read, 89, unsafe.Sizeof(Event{}))
	VidiocSubscribeEvent = ioc(write, 90, unsafe.Sizeof(EventSubscription{}))
)

// Values of the header that are used here.
const (
	BufCapture       = 1 // V4L2_BUF_TYPE_VIDEO_CAPTURE
	BufCaptureMplane = 9 // V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
	MemoryMmap       = 1

	CapCapture       = 0x00000001
	CapCaptureMplane = 0x00001000
	CapStreaming     = 0x04000000
	CapDeviceCaps    = 0x80000000
	CapTimePerFrame  = 0x1000

	BufFlagError         = 0x0040
	BufFlagTimestampMask = 0xe000
	BufFlagTimestampMono = 0x2000

	FieldAny  = 0
	FieldNone = 1

	QuantFull    = 1
	QuantLimited = 2
	SpaceJPEG    = 7

	FrmDiscrete = 1 // both V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE

	EventSourceChange = 5

	CtrlFlagDisabled = 0x0001
	CtrlFlagReadOnly = 0x0004
	CtrlFlagInactive = 0x0010
	CtrlFlagNext     = 0x80000000

	MaxPlanes = 8 // VIDEO_MAX_PLANES
)

// Capability is struct v4l2_capability.
type Capability struct {
	Driver       [16]byte
	Card         [32]byte
	BusInfo      [32]byte
	Version      uint32
	Capabilities uint32
	DeviceCaps   uint32
	_            [3]uint32
}

// FmtDesc is struct v4l2_fmtdesc.
type FmtDesc struct {
	Index       uint32
	Type        uint32
	Flags       uint32
	Description [32]byte
	PixelFormat uint32
	MbusCode    uint32
	_           [3]uint32
}

// FrmSizeEnum is struct v4l2_frmsizeenum.
type FrmSizeEnum struct {
	Index       uint32
	PixelFormat uint32
	Type        uint32
	Size        [6]uint32 // discrete: width, height; stepwise: min, max, step of both
	_           [2]uint32
}

// FrmIvalEnum is struct v4l2_frmivalenum.
type FrmIvalEnum struct {
	Index         uint32
	PixelFormat   uint32
	Width, Height uint32
	Type          uint32
	Interval      [6]uint32 // numerator, denominator; stepwise: min, max, step
	_             [2]uint32
}

// PixFormat is struct v4l2_pix_format.
type PixFormat struct {
	Width, Height, PixelFormat, Field   uint32
	BytesPerLine, SizeImage, Colorspace uint32
	Priv, Flags, Encoding               uint32
	Quantization, XferFunc              uint32
}

// PlanePix is struct v4l2_plane_pix_format.
type PlanePix struct {
	SizeImage    uint32
	BytesPerLine uint32
	_            [6]uint16
}

// PixFormatMplane is struct v4l2_pix_format_mplane, which is packed but has no holes anyway.
type PixFormatMplane struct {
	Width, Height, PixelFormat, Field, Colorspace uint32
	Planes                                        [MaxPlanes]PlanePix
	NumPlanes, Flags, Encoding, Quantization      uint8
	XferFunc                                      uint8
	_                                             [7]uint8
}

// Format is struct v4l2_format; its union is 200 bytes at an offset of 8.
type Format struct {
	Type uint32
	_    uint32
	Fmt  [25]uint64
}

// Pix is the union as that of a single-planar device.
func (f *Format) Pix() *PixFormat { return (*PixFormat)(unsafe.Pointer(&f.Fmt)) }

// Mplane is the union as that of a multi-planar device.
func (f *Format) Mplane() *PixFormatMplane { return (*PixFormatMplane)(unsafe.Pointer(&f.Fmt)) }

// StreamParm is struct v4l2_streamparm with the union's v4l2_captureparm.
type StreamParm struct {
	Type         uint32
	Capability   uint32
	Mode         uint32
	Numerator    uint32 // seconds per frame
	Denominator  uint32
	ExtendedMode uint32
	ReadBuffers  uint32
	_            [4]uint32
	_            [160]byte
}

// RequestBuffers is struct v4l2_requestbuffers.
type RequestBuffers struct {
	Count        uint32
	Type         uint32
	Memory       uint32
	Capabilities uint32
	Flags        uint8
	_            [3]uint8
}

// Plane is struct v4l2_plane.
type Plane struct {
	BytesUsed  uint32
	Length     uint32
	Mem        uint64 // offset for mmap, in the low half
	DataOffset uint32
	_          [11]uint32
}

// Buffer is struct v4l2_buffer.
type Buffer struct {
	Index     uint32
	Type      uint32
	BytesUsed uint32
	Flags     uint32
	Field     uint32
	_         uint32
	Sec, Usec int64 // struct timeval
	Timecode  [16]byte
	Sequence  uint32
	Memory    uint32
	Mem       uint64 // offset for mmap in the low half, or the address of the planes
	Length    uint32
	_         uint32
	RequestFD uint32
	_         uint32
}

// ExportBuffer is struct v4l2_exportbuffer.
type ExportBuffer struct {
	Type  uint32
	Index uint32
	Plane uint32
	Flags uint32
	FD    int32
	_     [11]uint32
}

// Control is struct v4l2_control.
type Control struct {
	ID    uint32
	Value int32
}

// QueryCtrl is struct v4l2_queryctrl.
type QueryCtrl struct {
	ID      uint32
	Type    uint32
	Name    [32]byte
	Minimum int32
	Maximum int32
	Step    int32
	Default int32
	Flags   uint32
	_       [2]uint32
}

// Event is struct v4l2_event.
type Event struct {
	Type      uint32
	_         uint32
	Data      [8]uint64
	Pending   uint32
	Sequence  uint32
	Timestamp [2]int64
	ID        uint32
	_         [9]uint32
}

// EventSubscription is struct v4l2_event_subscription.
type EventSubscription struct {
	Type  uint32
	ID    uint32
	Flags uint32
	_     [5]uint32
}

// FourCC is the code of a pixel format.
func FourCC(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// FourCCName is a code in letters.
func FourCCName(v uint32) string {
	return string([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

// Ready is what poll(2) said of a device.
type Ready struct{ Frame, Event, Trouble bool }
