package v4l2

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"vigil/sensors/v4l2/internal/uapi"
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
	"VIDIOC_QUERYCAP": uapi.VidiocQueryCap, "VIDIOC_ENUM_FMT": uapi.VidiocEnumFmt, "VIDIOC_S_FMT": uapi.VidiocSFmt,
	"VIDIOC_REQBUFS": uapi.VidiocReqBufs, "VIDIOC_QUERYBUF": uapi.VidiocQueryBuf, "VIDIOC_QBUF": uapi.VidiocQBuf, "VIDIOC_EXPBUF": uapi.VidiocExpBuf,
	"VIDIOC_DQBUF": uapi.VidiocDQBuf, "VIDIOC_STREAMON": uapi.VidiocStreamOn, "VIDIOC_STREAMOFF": uapi.VidiocStreamOff,
	"VIDIOC_G_PARM": uapi.VidiocGParm, "VIDIOC_S_PARM": uapi.VidiocSParm, "VIDIOC_G_CTRL": uapi.VidiocGCtrl, "VIDIOC_S_CTRL": uapi.VidiocSCtrl,
	"VIDIOC_QUERYCTRL": uapi.VidiocQueryCtrl, "VIDIOC_ENUM_FRAMESIZES": uapi.VidiocEnumFrameSizes,
	"VIDIOC_ENUM_FRAMEINTERVALS": uapi.VidiocEnumIntervals, "VIDIOC_DQEVENT": uapi.VidiocDQEvent, "VIDIOC_SUBSCRIBE_EVENT": uapi.VidiocSubscribeEvent,
	"V4L2_BUF_TYPE_VIDEO_CAPTURE": uapi.BufCapture, "V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE": uapi.BufCaptureMplane, "V4L2_MEMORY_MMAP": uapi.MemoryMmap,
	"V4L2_CAP_VIDEO_CAPTURE": uapi.CapCapture, "V4L2_CAP_VIDEO_CAPTURE_MPLANE": uapi.CapCaptureMplane, "V4L2_CAP_STREAMING": uapi.CapStreaming,
	"V4L2_CAP_DEVICE_CAPS": uapi.CapDeviceCaps, "V4L2_CAP_TIMEPERFRAME": uapi.CapTimePerFrame, "V4L2_BUF_FLAG_ERROR": uapi.BufFlagError,
	"V4L2_BUF_FLAG_TIMESTAMP_MASK": uapi.BufFlagTimestampMask, "V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC": uapi.BufFlagTimestampMono,
	"V4L2_FIELD_NONE": uapi.FieldNone, "V4L2_FIELD_ANY": uapi.FieldAny, "V4L2_QUANTIZATION_FULL_RANGE": uapi.QuantFull,
	"V4L2_QUANTIZATION_LIM_RANGE": uapi.QuantLimited, "V4L2_COLORSPACE_JPEG": uapi.SpaceJPEG, "V4L2_FRMSIZE_TYPE_DISCRETE": uapi.FrmDiscrete,
	"V4L2_FRMIVAL_TYPE_DISCRETE": uapi.FrmDiscrete, "V4L2_EVENT_SOURCE_CHANGE": uapi.EventSourceChange,
	"V4L2_CTRL_FLAG_DISABLED": uapi.CtrlFlagDisabled, "V4L2_CTRL_FLAG_READ_ONLY": uapi.CtrlFlagReadOnly,
	"V4L2_CTRL_FLAG_INACTIVE": uapi.CtrlFlagInactive, "V4L2_CTRL_FLAG_NEXT_CTRL": uapi.CtrlFlagNext, "VIDEO_MAX_PLANES": uapi.MaxPlanes,
	"V4L2_PIX_FMT_YUYV": uintptr(uapi.FourCC("YUYV")), "V4L2_PIX_FMT_NV12": uintptr(uapi.FourCC("NV12")), "V4L2_PIX_FMT_NV12M": uintptr(uapi.FourCC("NM12")),
	"V4L2_PIX_FMT_GREY": uintptr(uapi.FourCC("GREY")), "V4L2_PIX_FMT_MJPEG": uintptr(uapi.FourCC("MJPG")), "V4L2_PIX_FMT_JPEG": uintptr(uapi.FourCC("JPEG")),
	"V4L2_PIX_FMT_RGB24":     uintptr(uapi.FourCC("RGB3")),
	"V4L2_CID_EXPOSURE_AUTO": uintptr(controlIDs["exposure_auto"]), "V4L2_CID_EXPOSURE_ABSOLUTE": uintptr(controlIDs["exposure"]),
	"V4L2_CID_AUTOGAIN": uintptr(controlIDs["gain_auto"]), "V4L2_CID_GAIN": uintptr(controlIDs["gain"]),
	"V4L2_CID_FOCUS_AUTO": uintptr(controlIDs["focus_auto"]), "V4L2_CID_FOCUS_ABSOLUTE": uintptr(controlIDs["focus"]),
	"V4L2_CID_POWER_LINE_FREQUENCY": uintptr(controlIDs["anti_flicker"]), "V4L2_CID_BRIGHTNESS": uintptr(controlIDs["brightness"]),
	"V4L2_CID_CONTRAST": uintptr(controlIDs["contrast"]), "V4L2_CID_AUTO_WHITE_BALANCE": uintptr(controlIDs["white_balance_auto"]),
	"V4L2_CID_EXPOSURE_AUTO_PRIORITY": uintptr(controlIDs["exposure_auto_priority"]),
	"V4L2_CID_BACKLIGHT_COMPENSATION": uintptr(controlIDs["backlight_compensation"]),
}
