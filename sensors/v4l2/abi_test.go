package v4l2

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"
)

// TestLayoutsAreThoseOfTheHeader compiles every size, offset and number beside linux/videodev2.h.
func TestLayoutsAreThoseOfTheHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler: layouts are not checked against linux/videodev2.h")
	}
	var src strings.Builder
	src.WriteString("#include <stddef.h>\n#include <linux/videodev2.h>\n")
	same := func(c string, got uintptr) {
		fmt.Fprintf(&src, "_Static_assert((unsigned long)(%s) == %dul, %q);\n", c, got, c)
	}
	for c, got := range sizes {
		same("sizeof("+c+")", got)
	}
	for c, got := range offsets {
		s, field, _ := strings.Cut(c, ".")
		same("offsetof(struct "+s+", "+field+")", got)
	}
	for c, got := range numbers {
		same(c, got)
	}
	file := filepath.Join(t.TempDir(), "abi.c")
	if err := os.WriteFile(file, []byte(src.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(cc, "-fsyntax-only", file).CombinedOutput()
	if err != nil && strings.Contains(string(out), "videodev2.h: No such file") {
		t.Skip("no linux/videodev2.h: layouts are not checked")
	}
	if err != nil {
		t.Fatalf("layouts differ: %v\n%s", err, out)
	}
}

var sizes = map[string]uintptr{
	"struct v4l2_capability": unsafe.Sizeof(capability{}), "struct v4l2_fmtdesc": unsafe.Sizeof(fmtDesc{}),
	"struct v4l2_frmsizeenum": unsafe.Sizeof(frmSizeEnum{}), "struct v4l2_frmivalenum": unsafe.Sizeof(frmIvalEnum{}),
	"struct v4l2_pix_format": unsafe.Sizeof(pixFormat{}), "struct v4l2_plane_pix_format": unsafe.Sizeof(planePix{}),
	"struct v4l2_pix_format_mplane": unsafe.Sizeof(pixFormatMplane{}), "struct v4l2_format": unsafe.Sizeof(format{}),
	"struct v4l2_streamparm": unsafe.Sizeof(streamParm{}), "struct v4l2_requestbuffers": unsafe.Sizeof(requestBuffers{}),
	"struct v4l2_plane": unsafe.Sizeof(plane{}), "struct v4l2_buffer": unsafe.Sizeof(buffer{}),
	"struct v4l2_exportbuffer": unsafe.Sizeof(exportBuffer{}), "struct v4l2_control": unsafe.Sizeof(control{}),
	"struct v4l2_queryctrl": unsafe.Sizeof(queryCtrl{}), "struct v4l2_event": unsafe.Sizeof(event{}),
	"struct v4l2_event_subscription": unsafe.Sizeof(eventSubscription{}),
}

var offsets = map[string]uintptr{
	"v4l2_capability.card": unsafe.Offsetof(capability{}.Card), "v4l2_capability.device_caps": unsafe.Offsetof(capability{}.DeviceCaps),
	"v4l2_fmtdesc.pixelformat":         unsafe.Offsetof(fmtDesc{}.PixelFormat),
	"v4l2_frmsizeenum.discrete":        unsafe.Offsetof(frmSizeEnum{}.Size),
	"v4l2_frmivalenum.discrete":        unsafe.Offsetof(frmIvalEnum{}.Interval),
	"v4l2_format.fmt":                  unsafe.Offsetof(format{}.Fmt),
	"v4l2_pix_format.quantization":     unsafe.Offsetof(pixFormat{}.Quantization),
	"v4l2_pix_format_mplane.plane_fmt": unsafe.Offsetof(pixFormatMplane{}.Planes), "v4l2_pix_format_mplane.num_planes": unsafe.Offsetof(pixFormatMplane{}.NumPlanes),
	"v4l2_pix_format_mplane.quantization":       unsafe.Offsetof(pixFormatMplane{}.Quantization),
	"v4l2_streamparm.parm.capture.capability":   unsafe.Offsetof(streamParm{}.Capability),
	"v4l2_streamparm.parm.capture.timeperframe": unsafe.Offsetof(streamParm{}.Numerator),
	"v4l2_streamparm.parm.capture.readbuffers":  unsafe.Offsetof(streamParm{}.ReadBuffers),
	"v4l2_plane.m":                  unsafe.Offsetof(plane{}.Mem),
	"v4l2_plane.data_offset":        unsafe.Offsetof(plane{}.DataOffset),
	"v4l2_buffer.bytesused":         unsafe.Offsetof(buffer{}.BytesUsed),
	"v4l2_buffer.timestamp":         unsafe.Offsetof(buffer{}.Sec),
	"v4l2_buffer.sequence":          unsafe.Offsetof(buffer{}.Sequence),
	"v4l2_buffer.memory":            unsafe.Offsetof(buffer{}.Memory),
	"v4l2_buffer.m":                 unsafe.Offsetof(buffer{}.Mem),
	"v4l2_buffer.length":            unsafe.Offsetof(buffer{}.Length),
	"v4l2_buffer.request_fd":        unsafe.Offsetof(buffer{}.RequestFD),
	"v4l2_exportbuffer.fd":          unsafe.Offsetof(exportBuffer{}.FD),
	"v4l2_queryctrl.minimum":        unsafe.Offsetof(queryCtrl{}.Minimum),
	"v4l2_queryctrl.flags":          unsafe.Offsetof(queryCtrl{}.Flags),
	"v4l2_event.u":                  unsafe.Offsetof(event{}.Data),
	"v4l2_event.id":                 unsafe.Offsetof(event{}.ID),
	"v4l2_event_subscription.flags": unsafe.Offsetof(eventSubscription{}.Flags),
}

var numbers = map[string]uintptr{
	"VIDIOC_QUERYCAP": vidiocQueryCap, "VIDIOC_ENUM_FMT": vidiocEnumFmt, "VIDIOC_S_FMT": vidiocSFmt,
	"VIDIOC_REQBUFS": vidiocReqBufs, "VIDIOC_QUERYBUF": vidiocQueryBuf, "VIDIOC_QBUF": vidiocQBuf, "VIDIOC_EXPBUF": vidiocExpBuf,
	"VIDIOC_DQBUF": vidiocDQBuf, "VIDIOC_STREAMON": vidiocStreamOn, "VIDIOC_STREAMOFF": vidiocStreamOff,
	"VIDIOC_G_PARM": vidiocGParm, "VIDIOC_S_PARM": vidiocSParm, "VIDIOC_G_CTRL": vidiocGCtrl, "VIDIOC_S_CTRL": vidiocSCtrl,
	"VIDIOC_QUERYCTRL": vidiocQueryCtrl, "VIDIOC_ENUM_FRAMESIZES": vidiocEnumFrameSizes,
	"VIDIOC_ENUM_FRAMEINTERVALS": vidiocEnumIntervals, "VIDIOC_DQEVENT": vidiocDQEvent, "VIDIOC_SUBSCRIBE_EVENT": vidiocSubscribeEvent,
	"V4L2_BUF_TYPE_VIDEO_CAPTURE": bufCapture, "V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE": bufCaptureMplane, "V4L2_MEMORY_MMAP": memoryMmap,
	"V4L2_CAP_VIDEO_CAPTURE": capCapture, "V4L2_CAP_VIDEO_CAPTURE_MPLANE": capCaptureMplane, "V4L2_CAP_STREAMING": capStreaming,
	"V4L2_CAP_DEVICE_CAPS": capDeviceCaps, "V4L2_CAP_TIMEPERFRAME": capTimePerFrame, "V4L2_BUF_FLAG_ERROR": bufFlagError,
	"V4L2_BUF_FLAG_TIMESTAMP_MASK": bufFlagTimestampMask, "V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC": bufFlagTimestampMono,
	"V4L2_FIELD_NONE": fieldNone, "V4L2_FIELD_ANY": fieldAny, "V4L2_QUANTIZATION_FULL_RANGE": quantFull,
	"V4L2_QUANTIZATION_LIM_RANGE": quantLimited, "V4L2_COLORSPACE_JPEG": spaceJPEG, "V4L2_FRMSIZE_TYPE_DISCRETE": frmDiscrete,
	"V4L2_FRMIVAL_TYPE_DISCRETE": frmDiscrete, "V4L2_EVENT_SOURCE_CHANGE": eventSourceChange,
	"V4L2_CTRL_FLAG_DISABLED": ctrlFlagDisabled, "V4L2_CTRL_FLAG_READ_ONLY": ctrlFlagReadOnly,
	"V4L2_CTRL_FLAG_INACTIVE": ctrlFlagInactive, "V4L2_CTRL_FLAG_NEXT_CTRL": ctrlFlagNext, "VIDEO_MAX_PLANES": maxPlanes,
	"V4L2_PIX_FMT_YUYV": uintptr(fourcc("YUYV")), "V4L2_PIX_FMT_NV12": uintptr(fourcc("NV12")), "V4L2_PIX_FMT_NV12M": uintptr(fourcc("NM12")),
	"V4L2_PIX_FMT_GREY": uintptr(fourcc("GREY")), "V4L2_PIX_FMT_MJPEG": uintptr(fourcc("MJPG")), "V4L2_PIX_FMT_JPEG": uintptr(fourcc("JPEG")),
	"V4L2_PIX_FMT_RGB24":     uintptr(fourcc("RGB3")),
	"V4L2_CID_EXPOSURE_AUTO": uintptr(controlIDs["exposure_auto"]), "V4L2_CID_EXPOSURE_ABSOLUTE": uintptr(controlIDs["exposure"]),
	"V4L2_CID_AUTOGAIN": uintptr(controlIDs["gain_auto"]), "V4L2_CID_GAIN": uintptr(controlIDs["gain"]),
	"V4L2_CID_FOCUS_AUTO": uintptr(controlIDs["focus_auto"]), "V4L2_CID_FOCUS_ABSOLUTE": uintptr(controlIDs["focus"]),
	"V4L2_CID_POWER_LINE_FREQUENCY": uintptr(controlIDs["anti_flicker"]), "V4L2_CID_BRIGHTNESS": uintptr(controlIDs["brightness"]),
	"V4L2_CID_CONTRAST": uintptr(controlIDs["contrast"]), "V4L2_CID_AUTO_WHITE_BALANCE": uintptr(controlIDs["white_balance_auto"]),
	"V4L2_CID_EXPOSURE_AUTO_PRIORITY": uintptr(controlIDs["exposure_auto_priority"]),
	"V4L2_CID_BACKLIGHT_COMPENSATION": uintptr(controlIDs["backlight_compensation"]),
}
