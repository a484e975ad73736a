package v4l2

import "unsafe"

// The kernel's interface, linux/videodev2.h, as 64-bit machines lay it out. A test compiles these beside the header.

// ioc makes the number of an ioctl of the group 'V' (asm-generic/ioctl.h): direction, size, group, number.
func ioc(dir, nr, size uintptr) uintptr { return dir<<30 | size<<16 | 'V'<<8 | nr }

const (
	write = 1
	read  = 2
)

var (
	vidiocQueryCap       = ioc(read, 0, unsafe.Sizeof(capability{}))
	vidiocEnumFmt        = ioc(read|write, 2, unsafe.Sizeof(fmtDesc{}))
	vidiocSFmt           = ioc(read|write, 5, unsafe.Sizeof(format{}))
	vidiocReqBufs        = ioc(read|write, 8, unsafe.Sizeof(requestBuffers{}))
	vidiocQueryBuf       = ioc(read|write, 9, unsafe.Sizeof(buffer{}))
	vidiocQBuf           = ioc(read|write, 15, unsafe.Sizeof(buffer{}))
	vidiocExpBuf         = ioc(read|write, 16, unsafe.Sizeof(exportBuffer{}))
	vidiocDQBuf          = ioc(read|write, 17, unsafe.Sizeof(buffer{}))
	vidiocStreamOn       = ioc(write, 18, unsafe.Sizeof(int32(0)))
	vidiocStreamOff      = ioc(write, 19, unsafe.Sizeof(int32(0)))
	vidiocGParm          = ioc(read|write, 21, unsafe.Sizeof(streamParm{}))
	vidiocSParm          = ioc(read|write, 22, unsafe.Sizeof(streamParm{}))
	vidiocGCtrl          = ioc(read|write, 27, unsafe.Sizeof(control{}))
	vidiocSCtrl          = ioc(read|write, 28, unsafe.Sizeof(control{}))
	vidiocQueryCtrl      = ioc(read|write, 36, unsafe.Sizeof(queryCtrl{}))
	vidiocEnumFrameSizes = ioc(read|write, 74, unsafe.Sizeof(frmSizeEnum{}))
	vidiocEnumIntervals  = ioc(read|write, 75, unsafe.Sizeof(frmIvalEnum{}))
	vidiocDQEvent        = ioc(read, 89, unsafe.Sizeof(event{}))
	vidiocSubscribeEvent = ioc(write, 90, unsafe.Sizeof(eventSubscription{}))
)

// Values of the header that are used here.
const (
	bufCapture       = 1 // V4L2_BUF_TYPE_VIDEO_CAPTURE
	bufCaptureMplane = 9 // V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
	memoryMmap       = 1

	capCapture       = 0x00000001
	capCaptureMplane = 0x00001000
	capStreaming     = 0x04000000
	capDeviceCaps    = 0x80000000
	capTimePerFrame  = 0x1000

	bufFlagError         = 0x0040
	bufFlagTimestampMask = 0xe000
	bufFlagTimestampMono = 0x2000

	fieldAny  = 0
	fieldNone = 1

	quantFull    = 1
	quantLimited = 2
	spaceJPEG    = 7

	frmDiscrete = 1 // both V4L2_FRMSIZE_TYPE_DISCRETE and V4L2_FRMIVAL_TYPE_DISCRETE

	eventSourceChange = 5

	ctrlFlagDisabled = 0x0001
	ctrlFlagReadOnly = 0x0004
	ctrlFlagInactive = 0x0010
	ctrlFlagNext     = 0x80000000

	maxPlanes = 8 // VIDEO_MAX_PLANES
)

type capability struct {
	Driver       [16]byte
	Card         [32]byte
	BusInfo      [32]byte
	Version      uint32
	Capabilities uint32
	DeviceCaps   uint32
	_            [3]uint32
}

type fmtDesc struct {
	Index       uint32
	Type        uint32
	Flags       uint32
	Description [32]byte
	PixelFormat uint32
	MbusCode    uint32
	_           [3]uint32
}

type frmSizeEnum struct {
	Index       uint32
	PixelFormat uint32
	Type        uint32
	Size        [6]uint32 // discrete: width, height; stepwise: min, max, step of both
	_           [2]uint32
}

type frmIvalEnum struct {
	Index         uint32
	PixelFormat   uint32
	Width, Height uint32
	Type          uint32
	Interval      [6]uint32 // numerator, denominator; stepwise: min, max, step
	_             [2]uint32
}

// pixFormat is struct v4l2_pix_format.
type pixFormat struct {
	Width, Height, PixelFormat, Field   uint32
	BytesPerLine, SizeImage, Colorspace uint32
	Priv, Flags, Encoding               uint32
	Quantization, XferFunc              uint32
}

type planePix struct {
	SizeImage    uint32
	BytesPerLine uint32
	_            [6]uint16
}

// pixFormatMplane is struct v4l2_pix_format_mplane, which is packed but has no holes anyway.
type pixFormatMplane struct {
	Width, Height, PixelFormat, Field, Colorspace uint32
	Planes                                        [maxPlanes]planePix
	NumPlanes, Flags, Encoding, Quantization      uint8
	XferFunc                                      uint8
	_                                             [7]uint8
}

// format is struct v4l2_format; its union is 200 bytes at an offset of 8.
type format struct {
	Type uint32
	_    uint32
	Fmt  [25]uint64
}

func (f *format) pix() *pixFormat          { return (*pixFormat)(unsafe.Pointer(&f.Fmt)) }
func (f *format) mplane() *pixFormatMplane { return (*pixFormatMplane)(unsafe.Pointer(&f.Fmt)) }

// streamParm is struct v4l2_streamparm with the union's v4l2_captureparm.
type streamParm struct {
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

type requestBuffers struct {
	Count        uint32
	Type         uint32
	Memory       uint32
	Capabilities uint32
	Flags        uint8
	_            [3]uint8
}

type plane struct {
	BytesUsed  uint32
	Length     uint32
	Mem        uint64 // offset for mmap, in the low half
	DataOffset uint32
	_          [11]uint32
}

type buffer struct {
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

type exportBuffer struct {
	Type  uint32
	Index uint32
	Plane uint32
	Flags uint32
	FD    int32
	_     [11]uint32
}

type control struct {
	ID    uint32
	Value int32
}

type queryCtrl struct {
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

type event struct {
	Type      uint32
	_         uint32
	Data      [8]uint64
	Pending   uint32
	Sequence  uint32
	Timestamp [2]int64
	ID        uint32
	_         [9]uint32
}

type eventSubscription struct {
	Type  uint32
	ID    uint32
	Flags uint32
	_     [5]uint32
}

func fourcc(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func fourccName(v uint32) string {
	return string([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}
