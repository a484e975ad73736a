// Package picture turns a compressed picture (JPEG, PNG) into a frame.
//
// Promises: hostile input costs bounded memory and time. The header is read first, and a picture of no pixels, of more
// than the limit, or of more bytes than the limit is refused before anything is decoded; a truncated one is an error, not
// half a face. EXIF orientation is applied. It blocks only on the frame pool and owns nothing.
//
// It does not read video, keep colour profiles, or guess formats from file names.
package picture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"vigil/sensors"
)

// Limits of what Decode accepts.
const (
	MaxBytes  = 64 << 20 // compressed
	MaxPixels = 50e6     // decoded; 150 MB as RGB24
)

// Errors of Decode. All are wrapped with the numbers that a user needs.
var (
	// ErrFormat means the bytes are not a JPEG or PNG at all.
	ErrFormat = errors.New("not a JPEG or PNG picture")
	// ErrTooLarge means the picture is over MaxBytes or MaxPixels.
	ErrTooLarge = errors.New("picture too large")
	// ErrEmpty means a side of the picture is zero.
	ErrEmpty = errors.New("picture without pixels")
	// ErrBroken means the header is good but the rest is truncated or damaged.
	ErrBroken = errors.New("picture is damaged")
)

type codec struct {
	config func(*bytes.Reader) (image.Config, error)
	decode func(*bytes.Reader) (image.Image, error)
}

// Decode decodes data into a frame of pool as RGB24, one holder. Sensor, Seq and Captured are the caller's to set.
func Decode(ctx context.Context, pool *sensors.Pool, data []byte) (*sensors.Frame, error) {
	c, err := check(data)
	if err != nil {
		return nil, err
	}
	img, err := c.decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBroken, err)
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	f, err := pool.Get(ctx, 3*w*h)
	if err != nil {
		return nil, err
	}
	pix := f.Buffer()[:3*w*h]
	toRGB(pix, img)
	if o := orientation(data); o > 1 {
		pix, w, h = orient(f, pix, w, h, o)
	}
	f.Format, f.Width, f.Height = sensors.RGB24, w, h
	f.Planes[0] = sensors.Plane{Data: pix, StrideBytes: 3 * w}
	return f, nil
}

// Check reads the header only and says whether Decode would try.
func Check(data []byte) error {
	_, err := check(data)
	return err
}

func check(data []byte) (codec, error) {
	if len(data) > MaxBytes {
		return codec{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(data), MaxBytes)
	}
	c, err := sniff(data)
	if err != nil {
		return c, err
	}
	cfg, err := c.config(bytes.NewReader(data))
	if err != nil {
		return c, fmt.Errorf("%w: %v", ErrBroken, err)
	}
	if cfg.Width <= 0 || cfg.Height <= 0 {
		return c, fmt.Errorf("%w: %dx%d", ErrEmpty, cfg.Width, cfg.Height)
	}
	if int64(cfg.Width)*int64(cfg.Height) > MaxPixels {
		return c, fmt.Errorf("%w: %dx%d pixels, the limit is %.0f million: scale it down", ErrTooLarge, cfg.Width, cfg.Height, MaxPixels/1e6)
	}
	return c, nil
}

func sniff(data []byte) (codec, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xd8}):
		return codec{
			config: func(r *bytes.Reader) (image.Config, error) { return jpeg.DecodeConfig(r) },
			decode: func(r *bytes.Reader) (image.Image, error) { return jpeg.Decode(r) },
		}, nil
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return codec{
			config: func(r *bytes.Reader) (image.Config, error) { return png.DecodeConfig(r) },
			decode: func(r *bytes.Reader) (image.Image, error) { return png.Decode(r) },
		}, nil
	}
	return codec{}, ErrFormat
}
