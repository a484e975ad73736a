package face

import (
	"context"
	"errors"
	"fmt"

	"vigil/infer"
	"vigil/kernels/cpu"
	"vigil/sensors"
)

// What follows runs single stages, for those who calibrate or measure a model on its own. It disturbs nothing: the next
// Process starts afresh.

// ErrNoFace means that a picture shows no face that could be aligned.
var ErrNoFace = errors.New("no face in the picture")

// DetectInput writes what the detector would read of the frame into dst, which has the size of its input tensor.
func (p *Pipeline) DetectInput(dst []float32, f *sensors.Frame) error {
	im, err := infer.ViewFrame(f)
	if err != nil {
		return err
	}
	if len(dst) != 3*p.detect.w*p.detect.h {
		return fmt.Errorf("input of the detector has %d values, not %d", 3*p.detect.w*p.detect.h, len(dst))
	}
	scale := cpu.NewLetterbox
	if p.detect.pre.stretch {
		scale = cpu.NewStretch
	}
	scale(im.Width, im.Height, p.detect.w, p.detect.h).Into(dst, &im, &p.detect.pre.norm)
	return nil
}

// EmbedInput writes what the embedder would read of the frame into dst, which has the size of its input tensor: the frame
// itself where it is an aligned crop already (of just the size), else the face nearest to the centre, aligned. It returns
// ErrNoFace where there is none.
func (p *Pipeline) EmbedInput(ctx context.Context, dst []float32, f *sensors.Frame) error {
	im, err := infer.ViewFrame(f)
	if err != nil {
		return err
	}
	if len(dst) != 3*p.align.size*p.align.size {
		return fmt.Errorf("input of the embedder has %d values, not %d", 3*p.align.size*p.align.size, len(dst))
	}
	if im.Width == p.align.size && im.Height == p.align.size {
		cpu.NewLetterbox(im.Width, im.Height, p.align.size, p.align.size).Into(dst, &im, &p.embed.norm)
		return nil
	}
	if p.found, err = p.detect.run(ctx, &im, p.found[:0]); err != nil {
		return err
	}
	best, least := -1, float32(0)
	for i, c := range p.found {
		dx, dy := c.box[0]+c.box[2]/2-float32(im.Width)/2, c.box[1]+c.box[3]/2-float32(im.Height)/2
		if d := dx*dx + dy*dy; best < 0 || d < least {
			best, least = i, d
		}
	}
	if best < 0 {
		return ErrNoFace
	}
	toSrc, ok := p.align.transform(&Face{Box: p.found[best].box, Points: p.found[best].points})
	if !ok {
		return ErrNoFace
	}
	p.warp.Warp(dst, p.align.size, p.align.size, &im, toSrc, &p.embed.norm)
	return nil
}

// CropSize is the side of an aligned crop in pixels.
func (p *Pipeline) CropSize() int { return p.align.size }

// EmbedFrame makes the template of the face that EmbedInput finds: values has the size of a template.
func (p *Pipeline) EmbedFrame(ctx context.Context, values []int8, f *sensors.Frame) (scale float32, err error) {
	if len(values) != p.Dimension() {
		return 0, fmt.Errorf("a template has %d values, not %d", p.Dimension(), len(values))
	}
	if err := p.EmbedInput(ctx, p.embed.IO.Input(0), f); err != nil {
		return 0, err
	}
	return p.embed.run(ctx, values)
}
