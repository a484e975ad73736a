// Package picture turns a compressed picture (JPEG, PNG) into a frame.
//
// Promises: hostile input costs bounded memory and time. The header is read first, and a picture of no pixels, of more
// than the limit, of more bytes than the limit, of a kind that needs too much memory for its size, or of too many scans is
// refused before anything is decoded; a truncated one is an error, not half a face. EXIF orientation is applied. Motion JPEG
// without its Huffman tables is taken. It blocks only on the frame pool and owns nothing.
//
// It does not read video, keep colour profiles, or guess formats from file names.
package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"vigil/sensors"
	"vigil/sensors/picture/turbo"
)

// Limits of what Decode accepts.
const (
	MaxBytes  = 64 << 20 // compressed
	MaxPixels = 50e6     // decoded; 150 MB as RGB24
	MaxSide   = 65535    // pixels, the most a JPEG can have; a row costs its reader memory too

	maxDecoderBytes = 256 << 20 // of a decoder, beside the frame
)

// Errors of Decode. All are wrapped with the numbers that a user needs.
var (
	// ErrFormat means the bytes are not a JPEG or PNG at all.
	ErrFormat = errors.New("not a JPEG or PNG picture")
	// ErrTooLarge means the picture is over MaxBytes, MaxPixels or MaxSide, or needs too much memory or time to decode.
	ErrTooLarge = errors.New("picture too large")
	// ErrEmpty means a side of the picture is zero.
	ErrEmpty = errors.New("picture without pixels")
	// ErrBroken means the header is good but the rest is truncated or damaged.
	ErrBroken = errors.New("picture is damaged")
)

// codec is how a picture is read, and its size once that is known.
type codec struct {
	jpeg   bool
	w, h   int
	cost   func(data []byte, w, h int) error // refuses what would need too much
	config func(*bytes.Reader) (image.Config, error)
	decode func(data []byte) (image.Image, error)
}

// Decode decodes data into a frame of pool as RGB24, one holder. Sensor, Seq and Captured are the caller's to set.
func Decode(ctx context.Context, pool *sensors.Pool, data []byte) (*sensors.Frame, error) {
	c, err := check(data)
	if err != nil {
		return nil, err
	}
	f, err := c.frame(ctx, pool, data)
	if err != nil {
		return nil, err
	}
	w, h := f.Width, f.Height
	pix := f.Buffer()[:3*w*h]
	if o := orientation(data); o > 1 {
		pix, w, h = orient(f, pix, w, h, o)
	}
	f.Format, f.Width, f.Height = sensors.RGB24, w, h
	f.Planes[0] = sensors.Plane{Data: pix, StrideBytes: 3 * w}
	return f, nil
}

// frame decodes into a frame's buffer and sets its size: by libjpeg-turbo, if it is there and takes the picture, else by
// Go's decoders, who say what is wrong.
func (c *codec) frame(ctx context.Context, pool *sensors.Pool, data []byte) (*sensors.Frame, error) {
	if c.jpeg && turbo.Available() {
		f, err := pool.Get(ctx, 3*c.w*c.h)
		if err != nil {
			return nil, err
		}
		if turbo.Decode(f.Buffer()[:3*c.w*c.h], c.w, c.h, data) {
			f.Width, f.Height = c.w, c.h
			return f, nil
		}
		f.Release()
	}
	img, err := c.decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBroken, err)
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	f, err := pool.Get(ctx, 3*w*h)
	if err != nil {
		return nil, err
	}
	toRGB(f.Buffer()[:3*w*h], img)
	f.Width, f.Height = w, h
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
	if w, h, ok := pngSize(data); ok {
		if err := CheckSize(w, h); err != nil {
			return c, err
		}
	}
	cfg, err := c.config(bytes.NewReader(data))
	if err != nil {
		return c, fmt.Errorf("%w: %v", ErrBroken, err)
	}
	c.w, c.h = cfg.Width, cfg.Height
	if err := CheckSize(c.w, c.h); err != nil {
		return c, err
	}
	return c, c.cost(data, c.w, c.h)
}

// CheckSize says whether a picture of this size is accepted; if not, the error wraps ErrEmpty or ErrTooLarge.
func CheckSize(w, h int) error {
	if w <= 0 || h <= 0 {
		return fmt.Errorf("%w: %dx%d", ErrEmpty, w, h)
	}
	if w > MaxSide || h > MaxSide || int64(w)*int64(h) > MaxPixels {
		return fmt.Errorf("%w: %dx%d pixels, the limit is %.0f million and %d a side: scale it down", ErrTooLarge, w, h, MaxPixels/1e6, MaxSide)
	}
	return nil
}

// pngSize reads the size where PNG has it (ISO/IEC 15948, 11.2.2), because the decoder calls a size that it refuses
// damage.
func pngSize(data []byte) (w, h int, ok bool) {
	if len(data) < 24 || data[0] != 0x89 || string(data[12:16]) != "IHDR" {
		return 0, 0, false
	}
	return int(binary.BigEndian.Uint32(data[16:])), int(binary.BigEndian.Uint32(data[20:])), true
}

// checkPNG refuses what would need too much memory: Go's decoder keeps up to four bytes a pixel, eight where samples have 16 bits,
// and half as much again where the picture is interlaced.
func checkPNG(data []byte, w, h int) error {
	if len(data) < 29 {
		return nil // the decoder says what is wrong
	}
	perPixel := 4.0
	if depth := data[24]; depth == 16 {
		perPixel = 8
	}
	if interlaced := data[28]; interlaced != 0 {
		perPixel *= 1.5
	}
	return checkMemory(w, h, perPixel, "save it with 8 bits and without interlacing, or scale it down")
}

func sniff(data []byte) (codec, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xd8}):
		return codec{
			jpeg:   true,
			cost:   checkJPEG,
			config: func(r *bytes.Reader) (image.Config, error) { return jpeg.DecodeConfig(r) },
			decode: decodeJPEG,
		}, nil
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return codec{
			cost:   checkPNG,
			config: func(r *bytes.Reader) (image.Config, error) { return png.DecodeConfig(r) },
			decode: func(data []byte) (image.Image, error) { return png.Decode(bytes.NewReader(data)) },
		}, nil
	}
	return codec{}, ErrFormat
}
