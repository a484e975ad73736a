package face

import "math"

// Proportions of a head, as the points of our detector (YuNet) show them. Set on 763 pictures of LFW (deep-funneled).
const (
	// noseDepth is how far the nose stands out before the plane of eyes and mouth, in distances of eyes to mouth. Turned by a yaw,
	// the nose goes aside by the sine and the distance of the eyes shrinks by the cosine; over LFW, faces whose nose is 0.1, 0.2 and
	// 0.3 aside have their eyes 0.97, 0.91 and 0.83 times as far apart, which makes 0.42, 0.48 and 0.54.
	noseDepth = 0.48
	// noseLevel is where the nose lies between eyes (0) and mouth (1) of a face that looks ahead: the median.
	noseLevel = 0.57
	// chinOfMouth is the distance of eyes to chin over that of eyes to mouth: the median to the lower edge of the detector's box.
	chinOfMouth = 1.73
	// rollFollowed is the part of a turn of the picture that the detector's points follow: 40 of those pictures, turned by 10, 20,
	// 30 and 45 degrees either way, gave 5.5, 12, 17 and 20 degrees more in the median, with a tenth of the faces below 2, 7, 9 and 9.
	rollFollowed = 0.57
)

// geometry is what the five points say, in pixels of the frame.
type geometry struct {
	rightX, leftX float64 // of the eyes
	midX, midY    float64 // between them
	eyes          float64 // their distance
	tilt          float64 // of the line through them, in radians
	mouth         float64 // from the eyes to the mouth, at right angles to that line
	side, down    float64 // of the nose, along that line and across
}

func geometryOf(p *[10]float32) geometry {
	at := func(i int) (x, y float64) { return float64(p[2*i]), float64(p[2*i+1]) }
	rx, ry := at(0)
	lx, ly := at(1)
	g := geometry{rightX: rx, leftX: lx, midX: (rx + lx) / 2, midY: (ry + ly) / 2}
	g.eyes = math.Hypot(lx-rx, ly-ry)
	if g.eyes == 0 {
		return g
	}
	ux, uy := (lx-rx)/g.eyes, (ly-ry)/g.eyes
	g.tilt = math.Atan2(uy, ux)
	along := func(x, y float64) (side, down float64) {
		x, y = x-g.midX, y-g.midY
		return x*ux + y*uy, y*ux - x*uy
	}
	ax, ay := at(3)
	bx, by := at(4)
	_, g.mouth = along((ax+bx)/2, (ay+by)/2)
	g.side, g.down = along(at(2))
	return g
}

// pose estimates three angles.
func (c *Components) pose(g geometry) {
	if g.eyes == 0 || g.mouth <= 0 {
		for _, k := range [...]Kind{HeadPoseYaw, HeadPosePitch, HeadPoseRoll} {
			c[k] = Component{Value: 0, Measured: 90}
		}
		return
	}
	c.angle(HeadPoseYaw, math.Asin(max(-1, min(1, g.side/(noseDepth*g.mouth)))))
	c.angle(HeadPosePitch, math.Atan((g.down/g.mouth-noseLevel)/noseDepth))
	c.angle(HeadPoseRoll, g.tilt/rollFollowed)
}

// angle notes one of them, in radians: 100 cos², and 0 from a right angle on (OFIQ, HeadPose.cpp).
func (c *Components) angle(k Kind, radians float64) {
	v := max(0, math.Cos(radians))
	c.set(k, v*v, radians*180/math.Pi)
}

// place is about the size and the place of the face in the frame.
func (c *Components) place(g geometry, yaw *Component, frameW, frameH int) {
	if g.eyes == 0 {
		return
	}
	apart := g.eyes
	if yaw.Value != NotComputed {
		apart /= max(0.25, math.Cos(float64(yaw.Measured)*math.Pi/180)) // a profile says nothing about the distance
	}
	c.set(InterEyeDistance, sigmoid(apart, 70, 20), apart)
	margin := func(k Kind, distance, of, x0 float64) { c.set(k, sigmoid(distance/of, x0, 0.1), distance/of) }
	margin(LeftwardCropOfTheFaceImage, min(g.rightX, g.leftX), g.eyes, 0.9)
	margin(RightwardCropOfTheFaceImage, float64(frameW)-max(g.rightX, g.leftX), g.eyes, 0.9)
	if chin := chinOfMouth * g.mouth; chin > 0 {
		margin(MarginAboveOfTheFaceImage, g.midY, chin, 1.4)
		margin(MarginBelowOfTheFaceImage, float64(frameH)-g.midY, chin, 1.8)
	}
}
