package v4l2

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2/internal/uapi"
)

// Size is one picture size that a format comes in. A camera that takes any size gives its smallest and its largest.
type Size struct {
	Width, Height int       // pixels
	Rates         []float64 // frames per second, as many as the driver tells
}

// Offer is one pixel format of a camera.
type Offer struct {
	Code   string         // the kernel's four characters
	Format sensors.Format // ours; 0 where we do not read it
	Sizes  []Size
}

// Info is what a camera can do.
type Info struct {
	Identity
	Driver   string
	Mplane   bool
	Offers   []Offer
	Controls []ControlInfo
}

// List names the video devices of this machine, those that only give metadata among them.
func List() ([]Identity, error) { return machine.list() }

// Inspect opens a device for a look: it claims nothing and changes nothing.
func Inspect(id Identity) (Info, error) { return machine.inspect(id) }

func (h *Kernel) inspect(id Identity) (info Info, err error) {
	n, _, err := h.Open(id.Node)
	if err != nil {
		return Info{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	driver, kind, err := queryCap(n)
	if err != nil {
		return Info{}, err
	}
	return Info{Identity: id, Driver: driver, Mplane: kind == uapi.BufCaptureMplane, Offers: offers(n, kind), Controls: controls(n)}, nil
}

// queryCap says which driver this is and which buffer type it captures with. Errors: ErrUnsuited.
func queryCap(n Node) (driver string, kind uint32, err error) {
	var c capability
	if err := ioctl(n, uapi.VidiocQueryCap, &c); err != nil {
		return "", 0, fmt.Errorf("cannot ask what it is: %w", err)
	}
	caps := c.Capabilities
	if caps&uapi.CapDeviceCaps != 0 {
		caps = c.DeviceCaps
	}
	name, _, _ := bytes.Cut(c.Driver[:], []byte{0})
	switch {
	case caps&uapi.CapStreaming == 0:
		return string(name), 0, fmt.Errorf("%w: driver %s has no streaming", ErrUnsuited, name)
	case caps&uapi.CapCapture != 0:
		return string(name), uapi.BufCapture, nil
	case caps&uapi.CapCaptureMplane != 0:
		return string(name), uapi.BufCaptureMplane, nil
	}
	return string(name), 0, fmt.Errorf("%w: driver %s captures no video at this node", ErrUnsuited, name)
}

// codes are the kernel's formats that we read, and how many planes of memory each has.
var codes = []struct {
	code   uint32
	format sensors.Format
	planes int
}{
	{uapi.FourCC("YUYV"), sensors.YUYV, 1}, {uapi.FourCC("NV12"), sensors.NV12, 1}, {uapi.FourCC("NM12"), sensors.NV12, 2},
	{uapi.FourCC("GREY"), sensors.Gray8, 1}, {uapi.FourCC("MJPG"), sensors.MJPEG, 1}, {uapi.FourCC("JPEG"), sensors.MJPEG, 1},
	{uapi.FourCC("RGB3"), sensors.RGB24, 1},
}

func formatOf(code uint32) sensors.Format {
	for _, c := range codes {
		if c.code == code {
			return c.format
		}
	}
	return 0
}

// codeNames are the codes of a format; 0 means all.
func codeNames(f sensors.Format) []string {
	var names []string
	for _, c := range codes {
		if f == 0 || c.format == f {
			names = append(names, uapi.FourCCName(c.code))
		}
	}
	return names
}

// maxEnum bounds what a driver may enumerate.
const maxEnum = 256

func offers(n Node, kind uint32) []Offer {
	var all []Offer
	for i := range uint32(maxEnum) {
		d := fmtDesc{Index: i, Type: kind}
		if ioctl(n, uapi.VidiocEnumFmt, &d) != nil {
			break
		}
		all = append(all, Offer{Code: uapi.FourCCName(d.PixelFormat), Format: formatOf(d.PixelFormat), Sizes: frameSizes(n, d.PixelFormat)})
	}
	return all
}

func frameSizes(n Node, code uint32) []Size {
	var all []Size
	for i := range uint32(maxEnum) {
		e := frmSizeEnum{Index: i, PixelFormat: code}
		if ioctl(n, uapi.VidiocEnumFrameSizes, &e) != nil {
			break
		}
		if e.Type != uapi.FrmDiscrete { // min, max, step of width, then of height
			for j := range 2 {
				all = append(all, Size{int(e.Size[j]), int(e.Size[3+j]), rates(n, code, e.Size[j], e.Size[3+j])})
			}
			break
		}
		all = append(all, Size{int(e.Size[0]), int(e.Size[1]), rates(n, code, e.Size[0], e.Size[1])})
	}
	return all
}

func rates(n Node, code, width, height uint32) []float64 {
	var all []float64
	for i := range uint32(maxEnum) {
		e := frmIvalEnum{Index: i, PixelFormat: code, Width: width, Height: height}
		if ioctl(n, uapi.VidiocEnumIntervals, &e) != nil {
			break
		}
		if e.Interval[0] > 0 {
			all = append(all, float64(e.Interval[1])/float64(e.Interval[0]))
		}
		if e.Type != uapi.FrmDiscrete {
			if e.Interval[2] > 0 {
				all = append(all, float64(e.Interval[3])/float64(e.Interval[2]))
			}
			break
		}
	}
	return all
}

// layout is what a stream was agreed to be.
type layout struct {
	kind          uint32 // buffer type
	code          uint32
	format        sensors.Format
	width, height int
	full          bool // luma spans 0..255
	planes        int  // of memory
	stride        [2]int
	interval      float64 // seconds per frame, 0 if the driver does not say
}

// negotiate agrees on format, size and rate. Errors: ErrUnsuited, with what there is instead.
func negotiate(n Node, o *Options) (layout, error) {
	_, kind, err := queryCap(n)
	if err != nil {
		return layout{}, err
	}
	var tried []string
	for _, c := range codes {
		if c.format != o.Format && o.Format != 0 || o.Code != "" && uapi.FourCCName(c.code) != o.Code || c.planes > 1 && kind != uapi.BufCaptureMplane {
			continue
		}
		l, err := setFormat(n, kind, c.code, o)
		if gone(err) || silent(err) || errors.Is(err, unix.EBUSY) {
			return layout{}, err // it would say so to every format
		}
		if err == nil {
			l.interval, err = setRate(n, kind, o.Rate)
			return l, err
		}
		tried = append(tried, fmt.Sprintf("%s: %v", uapi.FourCCName(c.code), err))
	}
	return layout{}, fmt.Errorf("%w: %v (tried %v; the camera offers %v)", ErrUnsuited, o.wish(), tried, offered(n, kind))
}

func offered(n Node, kind uint32) []string {
	var names []string
	for _, o := range offers(n, kind) {
		if o.Format != 0 {
			names = append(names, o.Format.String())
		}
	}
	return names
}

func setFormat(n Node, kind, code uint32, o *Options) (layout, error) {
	f := format{Type: kind}
	width, height := uint32(o.Width), uint32(o.Height)
	if width == 0 {
		width, height = 640, 480 // the size that every camera has
	}
	if kind == uapi.BufCaptureMplane {
		p := f.Mplane()
		p.Width, p.Height, p.PixelFormat, p.Field = width, height, code, uapi.FieldNone
	} else {
		p := f.Pix()
		p.Width, p.Height, p.PixelFormat, p.Field = width, height, code, uapi.FieldNone
	}
	if err := ioctl(n, uapi.VidiocSFmt, &f); err != nil {
		return layout{}, fmt.Errorf("cannot set the format: %w", err)
	}
	l := layoutOf(kind, &f)
	switch {
	case l.code != code:
		return l, fmt.Errorf("the camera gives %s instead", uapi.FourCCName(l.code))
	case o.Width != 0 && (l.width != o.Width || l.height != o.Height):
		return l, fmt.Errorf("the camera gives %dx%d instead", l.width, l.height)
	}
	return l, l.check()
}

func layoutOf(kind uint32, f *format) layout {
	l := layout{kind: kind, planes: 1}
	var quant, space uint32
	if kind == uapi.BufCaptureMplane {
		p := f.Mplane()
		l.code, l.width, l.height, l.planes = p.PixelFormat, int(p.Width), int(p.Height), int(p.NumPlanes)
		quant, space = uint32(p.Quantization), p.Colorspace
		for i := range l.stride {
			l.stride[i] = int(p.Planes[i].BytesPerLine)
		}
	} else {
		p := f.Pix()
		l.code, l.width, l.height = p.PixelFormat, int(p.Width), int(p.Height)
		l.stride[0], quant, space = int(p.BytesPerLine), p.Quantization, p.Colorspace
	}
	l.format = formatOf(l.code)
	grey := l.format == sensors.Gray8 || l.format == sensors.RGB24 || l.format == sensors.MJPEG
	l.full = quant == uapi.QuantFull || quant != uapi.QuantLimited && (space == uapi.SpaceJPEG || grey)
	l.rows()
	return l
}

// rows completes strides that the driver leaves open.
func (l *layout) rows() {
	wide := map[sensors.Format]int{sensors.Gray8: 1, sensors.RGB24: 3, sensors.YUYV: 2, sensors.NV12: 1}[l.format] * l.width
	if l.stride[0] == 0 {
		l.stride[0] = wide
	}
	if l.format == sensors.NV12 && (l.planes == 1 || l.stride[1] == 0) {
		l.stride[1] = l.stride[0]
	}
}

// maxSide bounds a picture's sides in pixels, so that sizes cannot overflow.
const maxSide = 65535

// check says whether the driver's answer can be read at all.
func (l *layout) check() error {
	if l.width < 1 || l.height < 1 || l.width > maxSide || l.height > maxSide || l.planes < 1 || l.planes > 2 {
		return fmt.Errorf("the camera gives %dx%d pixels in %d planes", l.width, l.height, l.planes)
	}
	if l.format == sensors.NV12 && (l.width%2 != 0 || l.height%2 != 0) {
		return fmt.Errorf("NV12 of %dx%d pixels: the sides must be even", l.width, l.height)
	}
	least := layout{format: l.format, width: l.width, planes: 1}
	least.rows()
	if l.stride[0] < least.stride[0] || l.stride[0] > 1<<20 || l.stride[1] < least.stride[1] || l.stride[1] > 1<<20 {
		return fmt.Errorf("the camera gives rows of %v bytes for %d pixels", l.stride, l.width)
	}
	return nil
}

// need is how many bytes plane i of memory must hold to be a whole picture; 1 for compressed ones.
func (l *layout) need(i int) int {
	switch {
	case l.format == sensors.MJPEG:
		return 1
	case i == 1:
		return l.stride[1] * l.height / 2
	case l.format == sensors.NV12 && l.planes == 1:
		return l.stride[0]*l.height + l.stride[1]*l.height/2
	}
	return l.stride[0] * l.height
}

// setRate asks for frames per second and returns the seconds per frame that the driver agreed to.
func setRate(n Node, kind uint32, rate float64) (float64, error) {
	p := streamParm{Type: kind}
	if err := ioctl(n, uapi.VidiocGParm, &p); err != nil {
		if gone(err) {
			return 0, err
		}
		return 0, nil // a driver without rates
	}
	if rate > 0 && p.Capability&uapi.CapTimePerFrame != 0 {
		p = streamParm{Type: kind, Numerator: 1000, Denominator: uint32(rate*1000 + 0.5)}
		if err := ioctl(n, uapi.VidiocSParm, &p); err != nil {
			return 0, fmt.Errorf("cannot set %v frames per second: %w", rate, err)
		}
	}
	if p.Denominator == 0 {
		return 0, nil
	}
	return float64(p.Numerator) / float64(p.Denominator), nil
}
