package core

import (
	"context"
	"fmt"
	"time"

	"vigil/sensors"
	"vigil/sensors/picture"
)

// Raw describes pixels that need no decoding, as a sensor gives them.
type Raw struct {
	Width, Height int // pixels
	Format        sensors.Format
	FullRange     bool // YUV luma spans 0..255 rather than 16..235
}

// Bytes is the size of the pixels, rows without padding. Errors: picture.ErrEmpty, picture.ErrTooLarge; picture.ErrBroken for
// a size that the format cannot have.
func (r *Raw) Bytes() (int, error) {
	if err := picture.CheckSize(r.Width, r.Height); err != nil {
		return 0, err
	}
	pixels := r.Width * r.Height
	switch r.Format {
	case sensors.Gray8:
		return pixels, nil
	case sensors.RGB24:
		return 3 * pixels, nil
	case sensors.NV12:
		if r.Width%2 == 0 && r.Height%2 == 0 {
			return pixels + pixels/2, nil
		}
	case sensors.YUYV:
		if r.Width%2 == 0 {
			return 2 * pixels, nil
		}
	}
	return 0, fmt.Errorf("%w: %dx%d pixels cannot be %v: its sides must be even", picture.ErrBroken, r.Width, r.Height, r.Format)
}

// check says whether a picture is worth waiting for the engines.
func (p *Picture) check() error {
	if p.Raw == nil {
		return picture.Check(p.Data)
	}
	n, err := p.Raw.Bytes()
	if err == nil && n != len(p.Data) {
		err = fmt.Errorf("%w: %d bytes are not %dx%d pixels of %v, which have %d", picture.ErrBroken,
			len(p.Data), p.Raw.Width, p.Raw.Height, p.Raw.Format, n)
	}
	return err
}

// frame makes a frame of a checked picture; the caller releases it. Raw pixels are not copied: the frame's planes are the
// caller's bytes, which must not change before the frame is released for the last time.
func (p *Picture) frame(ctx context.Context, pool *sensors.Pool) (*sensors.Frame, error) {
	if p.Raw == nil {
		return picture.Decode(ctx, pool, p.Data)
	}
	f, err := sensors.NewPool(1).Get(ctx, 0) // a shell without memory of its own
	if err != nil {
		return nil, err
	}
	r := p.Raw
	f.Captured, f.Width, f.Height, f.Format, f.FullRange = time.Now(), r.Width, r.Height, r.Format, r.FullRange
	switch pixels := r.Width * r.Height; r.Format {
	case sensors.NV12:
		f.Planes[0] = sensors.Plane{Data: p.Data[:pixels], StrideBytes: r.Width}
		f.Planes[1] = sensors.Plane{Data: p.Data[pixels:], StrideBytes: r.Width}
	default:
		f.Planes[0] = sensors.Plane{Data: p.Data, StrideBytes: len(p.Data) / r.Height}
	}
	return f, nil
}
