package infer

import (
	"errors"
	"fmt"

	"vigil/kernels"
	"vigil/sensors"
)

// ErrFormat means that the frame's pixels cannot be read by a pipeline.
var ErrFormat = errors.New("frame cannot be processed")

// ViewFrame views a frame as the kernels do: its planes, not a copy. The error wraps ErrFormat and names the frame.
func ViewFrame(f *sensors.Frame) (kernels.Image, error) {
	im := kernels.Image{Width: f.Width, Height: f.Height, FullRange: f.FullRange}
	switch f.Format {
	case sensors.Gray8:
		im.Format = kernels.Gray8
	case sensors.RGB24:
		im.Format = kernels.RGB24
	case sensors.NV12:
		im.Format = kernels.NV12
	case sensors.YUYV:
		im.Format = kernels.YUYV
	default:
		return im, fmt.Errorf("%w: sensor %s, frame %d: format %v must be decoded first", ErrFormat, f.Sensor, f.Seq, f.Format)
	}
	for i, pl := range f.Planes {
		im.Planes[i] = kernels.Plane{Data: pl.Data, StrideBytes: pl.StrideBytes}
	}
	if err := im.Check(); err != nil {
		return im, fmt.Errorf("%w: sensor %s, frame %d: %w", ErrFormat, f.Sensor, f.Seq, err)
	}
	return im, nil
}
