package face_test

import (
	"math"
	"testing"

	"vigil/infer/face"
	"vigil/infer/infertest"
	"vigil/sensors"
)

// rotated turns a picture about a point.
func rotated(src *sensors.Frame, mx, my, degrees float64) *sensors.Frame {
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	return changed(src, src.Width, src.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
		dx, dy := float64(x)-mx, float64(y)-my
		return px(int(mx+cos*dx-sin*dy), int(my+sin*dx+cos*dy))
	})
}

// at is the face nearest to a point: pictures show others too.
func at(t *testing.T, r *face.Result, x, y float64) *face.Face {
	t.Helper()
	var best *face.Face
	least := math.Inf(1)
	for i := range r.Faces {
		b := &r.Faces[i].Box
		if d := math.Hypot(float64(b[0]+b[2]/2)-x, float64(b[1]+b[3]/2)-y); d < least {
			best, least = &r.Faces[i], d
		}
	}
	if best == nil {
		t.Fatal("no face is found any more: the change is too strong to judge by")
	}
	return best
}

// cropped begins at a point of a picture.
func cropped(src *sensors.Frame, x0, y0 int) *sensors.Frame {
	return changed(src, src.Width-x0, src.Height-y0, func(px func(x, y int) [3]float32, x, y int) [3]float32 { return px(x0+x, y0+y) })
}

// TestComponentsMoveTheRightWay on a real picture that is blurred, darkened, scaled, rotated, cropped.
func TestComponentsMoveTheRightWay(t *testing.T) {
	p := infertest.Pipeline(t)
	src := load(t, "photos", "azure_detection1.jpg")
	base := changed(src, src.Width*2/5, src.Height*2/5, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
		return mean(px, x*5/2, y*5/2, 2)
	})
	f := largest(t, p, base)
	good, box := f.Quality.Components, f.Box
	t.Logf("as it is: %+v, guidance %q", good, good.Guidance())
	if code := good.Guidance(); code != face.NoGuidance {
		t.Errorf("the picture itself gives %q", code)
	}
	middle := box[0] + box[2]/2
	gain := func(a, b float32) func(func(x, y int) [3]float32, int, int) [3]float32 {
		return func(px func(x, y int) [3]float32, x, y int) [3]float32 {
			m := px(x, y)
			return [3]float32{a + m[0]*b, a + m[1]*b, a + m[2]*b}
		}
	}
	for _, c := range []struct {
		name  string
		of    func(face.Components) uint8
		frame *sensors.Frame
		want  face.Guidance
	}{
		{"blurred", func(c face.Components) uint8 { return c.Sharpness }, changed(base, base.Width, base.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
			return mean(px, x-4, y-4, 9)
		}), face.HoldStill},
		{"dark", func(c face.Components) uint8 { return c.UnderExposurePrevention }, changed(base, base.Width, base.Height, gain(0, 0.12)), face.MoreLight},
		{"overexposed", func(c face.Components) uint8 { return c.OverExposurePrevention }, changed(base, base.Width, base.Height, gain(60, 2)), face.LessLight},
		{"flat", func(c face.Components) uint8 { return c.DynamicRange }, changed(base, base.Width, base.Height, gain(110, 0.125)), ""},
		{"scaled", func(c face.Components) uint8 { return c.InterEyeDistance }, changed(base, base.Width/3, base.Height/3, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
			return mean(px, 3*x, 3*y, 3)
		}), face.ComeCloser},
		{"lit from one side", func(c face.Components) uint8 { return c.IlluminationUniformity }, changed(base, base.Width, base.Height, func(px func(x, y int) [3]float32, x, y int) [3]float32 {
			m, k := px(x, y), float32(1)
			if float32(x) > middle {
				k = 0.4
			}
			return [3]float32{m[0] * k, m[1] * k, m[2] * k}
		}), ""},
	} {
		r := process(t, p, c.frame)
		if len(r.Faces) == 0 {
			t.Errorf("%s: no face is found any more: the change is too strong to judge by", c.name)
			continue
		}
		q := r.Faces[0].Quality.Components
		t.Logf("%-18s %d -> %d, guidance %q", c.name, c.of(good), c.of(q), q.Guidance())
		if c.of(q)+15 > c.of(good) || c.want != "" && q.Guidance() != c.want {
			t.Errorf("%s: %d, was %d, guidance %q, want %q: %+v", c.name, c.of(q), c.of(good), q.Guidance(), c.want, q)
		}
	}
}

// TestTurnedAndCropped: a face that is turned more and more, and one that leaves the picture.
func TestTurnedAndCropped(t *testing.T) {
	p := infertest.Pipeline(t)
	f := lfw(t, "Aaron_Sorkin", 1)
	b := largest(t, p, f).Box
	x, y := float64(b[0]+b[2]/2), float64(b[1]+b[3]/2)
	worse := uint8(101)
	for _, degrees := range []float64{0, 10, 20, 30, 40} { // the detector's points follow a turn by about half of it
		c := at(t, process(t, p, rotated(f, x, y, degrees)), x, y).Quality.Components
		t.Logf("turned by %2v degrees: roll %d, guidance %q", degrees, c.HeadPoseRoll, c.Guidance())
		if c.HeadPoseRoll >= worse {
			t.Errorf("turned by %v: roll %d, with less %d", degrees, c.HeadPoseRoll, worse)
		}
		worse = c.HeadPoseRoll
	}
	if worse >= 100 {
		t.Error("a face that is turned by 40 degrees counts as upright")
	}
	f = load(t, "photos", "azure_detection1.jpg")
	b = largest(t, p, f).Box
	x, y = float64(b[0]+b[2]/2), float64(b[1]+b[3]/2)
	worse = 101
	for _, part := range []float64{0, 0.2, 0.35} {
		x0 := int(float64(b[0]) + part*float64(b[2]))
		if part == 0 {
			x0 = 0
		}
		c := at(t, process(t, p, cropped(f, x0, 0)), x-float64(x0), y).Quality.Components
		t.Logf("cropped by %.2f of the face: in frame %d, guidance %q", part, c.FaceInFrame, c.Guidance())
		if c.FaceInFrame > worse {
			t.Errorf("cropped by %v: %d, with less %d", part, c.FaceInFrame, worse)
		}
		worse = c.FaceInFrame
	}
	if worse >= 100 {
		t.Error("a face that is cut by a third counts as whole")
	}
}

func TestGuidanceNamesTheWorst(t *testing.T) {
	all := face.Components{
		UnderExposurePrevention: 100, OverExposurePrevention: 100, DynamicRange: 90, IlluminationUniformity: 80, Sharpness: 90,
		InterEyeDistance: 100, HeadPoseYaw: face.NotComputed, HeadPosePitch: 95, HeadPoseRoll: 99, FaceInFrame: 100,
	}
	for want, spoil := range map[face.Guidance]func(*face.Components){
		face.NoGuidance:   func(*face.Components) {},
		face.ComeCloser:   func(c *face.Components) { c.InterEyeDistance = 20 },
		face.StepBack:     func(c *face.Components) { c.FaceInFrame = 30 },
		face.CentreFace:   func(c *face.Components) { c.FaceInFrame, c.InterEyeDistance = 30, 60 },
		face.MoreLight:    func(c *face.Components) { c.UnderExposurePrevention, c.Sharpness = 10, 20 },
		face.LessLight:    func(c *face.Components) { c.OverExposurePrevention = 10 },
		face.EvenLight:    func(c *face.Components) { c.IlluminationUniformity = 10 },
		face.HoldStill:    func(c *face.Components) { c.Sharpness = 10 },
		face.LookStraight: func(c *face.Components) { c.HeadPoseYaw = 10 },
		face.HeadUpright:  func(c *face.Components) { c.HeadPoseRoll = 10 },
	} {
		c := all
		spoil(&c)
		if got := c.Guidance(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
