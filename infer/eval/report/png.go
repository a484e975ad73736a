//go:build !appliance

package report

import (
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// palette is that of chartStyle in light.
var palette = []color.NRGBA{
	{0x0b, 0x62, 0xa8, 255}, {0xc2, 0x54, 0x0a, 255}, {0x14, 0x79, 0x5a, 255},
	{0x8a, 0x3f, 0x91, 255}, {0x7a, 0x6a, 0x00, 255}, {0x9b, 0x22, 0x42, 255},
}

var (
	ink  = color.NRGBA{0x1d, 0x24, 0x30, 255}
	soft = color.NRGBA{0x5b, 0x65, 0x75, 255}
	grey = color.NRGBA{0xe3, 0xe7, 0xed, 255}
)

// drawsPNG says that Write makes PNG files.
const drawsPNG = true

// pngDPI gives a picture of twice the pixels of the drawing.
const pngDPI = 192

// png draws the chart with gonum's plot. Both axes run from 0 to 1: the scales are the chart's own.
func (c *chart) png(w io.Writer) error {
	p := plot.New()
	for _, f := range []*font.Variant{&p.Title.TextStyle.Font.Variant, &p.X.Label.TextStyle.Font.Variant, &p.Y.Label.TextStyle.Font.Variant,
		&p.X.Tick.Label.Font.Variant, &p.Y.Tick.Label.Font.Variant, &p.Legend.TextStyle.Font.Variant} {
		*f = "Sans"
	}
	p.Title.Text = c.title
	p.Title.TextStyle.Color, p.Title.TextStyle.Font.Size, p.Title.Padding = ink, vg.Points(11), vg.Points(6)
	for _, a := range []struct {
		to   *plot.Axis
		from *axis
	}{{&p.X, &c.x}, {&p.Y, &c.y}} {
		a.to.Min, a.to.Max, a.to.Label.Text = 0, 1, a.from.label
		a.to.Label.TextStyle.Color, a.to.Tick.Label.Color, a.to.Color, a.to.Tick.Color = soft, soft, soft, soft
		a.to.Label.TextStyle.Font.Size, a.to.Tick.Label.Font.Size, a.to.Padding = vg.Points(9), vg.Points(8), 0
		a.to.Tick.Marker = a.from.constantTicks()
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = grey, grey
	p.Add(grid)
	if err := c.pngSeries(p); err != nil {
		return err
	}
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = !c.keyLow(), vg.Points(-14), vg.Points(-6)
	if !p.Legend.Top {
		p.Legend.YOffs = vg.Points(6)
	}
	p.Legend.TextStyle.Color, p.Legend.TextStyle.Font.Size = soft, vg.Points(8)
	p.Legend.ThumbnailWidth, p.Legend.Padding = vg.Points(22), vg.Points(3)
	canvas := vgimg.NewWith(vgimg.UseWH(vg.Points(width*0.75), vg.Points(height*0.75)), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(color.White))
	dc := draw.New(canvas)
	p.Draw(draw.Crop(dc, vg.Points(6), -vg.Points(10), vg.Points(6), -vg.Points(6)))
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// constantTicks drops labels that would touch the one before.
func (a *axis) constantTicks() plot.ConstantTicks {
	var out plot.ConstantTicks
	last := -1.0
	for _, t := range a.ticks {
		x := a.pos(t.at)
		k := plot.Tick{Value: x, Label: t.label}
		if x-last < 0.045+0.004*float64(len(t.label)) && last >= 0 {
			k.Label = ""
		} else {
			last = x
		}
		out = append(out, k)
	}
	return out
}

func (c *chart) pngSeries(p *plot.Plot) error {
	if c.equal {
		lo, hi := max(c.x.from, c.y.from), min(c.x.to, c.y.to)
		l, err := plotter.NewLine(plotter.XYs{{X: c.x.pos(lo), Y: c.y.pos(lo)}, {X: c.x.pos(hi), Y: c.y.pos(hi)}})
		if err != nil {
			return err
		}
		l.Color, l.Width, l.Dashes = soft, vg.Points(0.6), []vg.Length{vg.Points(1.5), vg.Points(3)}
		p.Add(l)
	}
	for i := range c.series {
		if err := c.pngLines(p, &c.series[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *chart) pngLines(p *plot.Plot, s *series) error {
	tint := palette[s.color%len(palette)]
	style := draw.LineStyle{Color: tint, Width: vg.Points(1.5)}
	for _, d := range dashes[s.dash%len(dashes)] {
		style.Dashes = append(style.Dashes, vg.Points(d*0.75))
	}
	sample := &plotter.Line{LineStyle: style} // of the legend
	for _, line := range c.lines(s) {
		xy := make(plotter.XYs, len(line))
		for i, q := range line {
			xy[i].X, xy[i].Y = q.x, q.y
		}
		l := &plotter.Line{XYs: xy, LineStyle: style}
		if s.area {
			fill := tint
			fill.A = 56
			l.FillColor, l.Width = fill, vg.Points(1)
			sample.FillColor = fill
		}
		p.Add(l)
	}
	p.Legend.Add(s.label, sample)
	if !s.marks {
		return nil
	}
	xy := make(plotter.XYs, len(s.x))
	for i := range s.x {
		xy[i].X, xy[i].Y = c.x.pos(s.x[i]), c.y.pos(s.y[i])
	}
	m, err := plotter.NewScatter(xy)
	if err != nil {
		return err
	}
	m.Color, m.Radius, m.Shape = tint, vg.Points(2.2), draw.CircleGlyph{}
	p.Add(m)
	return nil
}
