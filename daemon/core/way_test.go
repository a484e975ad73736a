package core_test

import (
	"bytes"
	"image"
	"image/jpeg"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer/infertest"
	"vigil/sensors"
	"vigil/sensors/v4l2"
	"vigil/sensors/v4l2/v4l2test"
)

// canvas is the picture of the played camera, in pixels: a photograph in the middle of grey.
const canvasW, canvasH = 640, 480

// decodePhoto decodes a picture for a camera to show.
func decodePhoto(t *testing.T, photo []byte) image.Image {
	t.Helper()
	im, _, err := image.Decode(bytes.NewReader(photo))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// yuv is a photograph as a camera gives it: luma and chroma of BT.601 in studio swing, in the middle of the canvas.
func yuv(im image.Image) (y, u, v []byte) {
	y, u, v = bytes.Repeat([]byte{126}, canvasW*canvasH), bytes.Repeat([]byte{128}, canvasW*canvasH), bytes.Repeat([]byte{128}, canvasW*canvasH)
	b := im.Bounds()
	left, top := (canvasW-b.Dx())/2, (canvasH-b.Dy())/2
	for j := range b.Dy() {
		for i := range b.Dx() {
			r16, g16, b16, _ := im.At(b.Min.X+i, b.Min.Y+j).RGBA()
			r, g, bl := float64(r16>>8), float64(g16>>8), float64(b16>>8)
			at := (top+j)*canvasW + left + i
			y[at] = byte(math.Round(16 + 0.256788*r + 0.504129*g + 0.097906*bl))
			u[at] = byte(math.Round(128 - 0.148223*r - 0.290993*g + 0.439216*bl))
			v[at] = byte(math.Round(128 + 0.439216*r - 0.367788*g - 0.071427*bl))
		}
	}
	return y, u, v
}

func asYUYV(y, u, v []byte) []byte {
	out := make([]byte, 2*canvasW*canvasH)
	for i := 0; i < len(y); i += 2 {
		out[2*i], out[2*i+1], out[2*i+2], out[2*i+3] = y[i], u[i], y[i+1], v[i]
	}
	return out
}

func asNV12(y, u, v []byte) []byte {
	out := append([]byte(nil), y...)
	for j := 0; j < canvasH; j += 2 {
		for i := 0; i < canvasW; i += 2 {
			out = append(out, u[j*canvasW+i], v[j*canvasW+i])
		}
	}
	return out
}

func asMJPEG(t *testing.T, y, u, v []byte) []byte {
	t.Helper()
	im := image.NewYCbCr(image.Rect(0, 0, canvasW, canvasH), image.YCbCrSubsampleRatio444)
	for i := range y { // JPEG's YCbCr is of full range
		im.Y[i] = byte(min(255, max(0, (int(y[i])-16)*255/219)))
		im.Cb[i], im.Cr[i] = byte(128+(int(u[i])-128)*255/224), byte(128+(int(v[i])-128)*255/224)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, im, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// watched looks whether every frame that went through the pipeline lies in the camera's own memory.
type watched struct {
	camera         *v4l2test.Camera
	frames, copied atomic.Uint64
}

func (w *watched) own(f *sensors.Frame) {
	w.frames.Add(1)
	if !w.camera.Owns(f.Planes[0].Data) || len(f.Planes[1].Data) > 0 && !w.camera.Owns(f.Planes[1].Data) {
		w.copied.Add(1)
	}
}

// TestFromTheDriversStampToTheDecision lets a person stand before a played camera, through the real pipeline: figures for each
// place on the way of a frame, no copy of a picture, and places that follow one another and add up.
func TestFromTheDriversStampToTheDecision(t *testing.T) {
	pics := daemontest.Pictures(t, ann, 6)
	y, u, v := yuv(decodePhoto(t, pics[5]))
	for _, c := range []struct {
		format, code string
		picture      []byte
		copies       uint64 // a frame
	}{
		{"yuyv", "YUYV", asYUYV(y, u, v), 0}, {"nv12", "NV12", asNV12(y, u, v), 0}, {"mjpeg", "MJPG", asMJPEG(t, y, u, v), 1},
	} {
		t.Run(c.format, func(t *testing.T) {
			m, k := v4l2test.NewMachine(t.TempDir()), v4l2test.NewCamera()
			k.Code, k.W, k.H, k.Interval = c.code, canvasW, canvasH, 100*time.Millisecond
			k.Show(c.picture)
			if err := m.Plug(0, "1", pinnedUSB, pinnedSerial, pinnedCard, k); err != nil {
				t.Fatal(err)
			}
			core.SetCameraKernel(t, v4l2.Kernel{Sys: m.Sys, Dev: "/dev", Open: func(path string) (v4l2.Node, uint64, error) { return m.Open(path) }})
			d := daemontest.New(t)
			d.Import(t, infertest.Data(t, "models"), "face-liveness")
			d.Config.Policy.Liveness, d.Config.Policy.LivenessThreshold = config.LivenessRequired, 1e-6 // it runs, and lets photographs pass
			look := &watched{camera: k}
			core.SetLookedAt(t, look.own)
			a := d.Open(t)
			defer closeApp(t, a)
			e := must[core.Enrolled](t)(a.Enroll(t.Context(), "Ann", pics[:4]))
			w := atThePorch(t, a, c.format)
			select {
			case dec := <-w.C:
				if dec.Outcome != decide.Match || dec.Subject != e.Subject {
					t.Fatalf("%+v", dec)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("no decision: %+v", a.Status().Sensors[0])
			}
			frames := func() uint64 { return a.Status().Sensors[0].Frames }
			wait := func(n uint64) {
				for limit := time.Now().Add(time.Minute); frames() < n; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatalf("%+v", a.Status().Sensors[0])
					}
				}
			}
			wait(5)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			from := frames()
			wait(from + 30)
			runtime.ReadMemStats(&after)
			perFrame := (after.TotalAlloc - before.TotalAlloc) / (frames() - from)
			s := a.Status()
			sn := s.Sensors[0]
			if sn.Copies != c.copies*sn.Frames {
				t.Errorf("%d copies of %d frames, want %d each", sn.Copies, sn.Frames, c.copies)
			}
			if c.copies == 0 && (look.copied.Load() != 0 || look.frames.Load() < 30) {
				t.Errorf("%d of %d frames that the pipeline saw lie outside the camera's buffers", look.copied.Load(), look.frames.Load())
			}
			if c.copies > 0 && look.copied.Load() != look.frames.Load() { // or the look is blind
				t.Errorf("%d of %d decoded frames are said to lie in the camera's buffers", look.frames.Load()-look.copied.Load(), look.frames.Load())
			}
			if size := uint64(len(c.picture)); c.copies == 0 && perFrame > size/4 {
				t.Errorf("%d bytes are allocated a frame of %d bytes: something is copied", perFrame, size)
			}
			t.Logf("%s, %d frames, %d copies, %d bytes allocated a frame of %d bytes (status and metrics among them)", c.format, sn.Frames, sn.Copies, perFrame, len(c.picture))
			addUp(t, sn.Way, s.Latency)
			gathered(t, a, sn.Way)
		})
	}
}

// addUp makes sure that the places follow one another, and that what lies between two is what the stages say they took.
func addUp(t *testing.T, way, stages []core.Latency) {
	t.Helper()
	want := []string{core.StageDequeued, core.StageTaken, core.StageBegun, "detect", "align", "quality", "liveness", "embed", core.StageMatch, core.StageDecided, core.StageDurable}
	var names []string
	at, took, last := map[string]float64{}, map[string]float64{}, 0.0
	for _, l := range way {
		names = append(names, l.Stage)
		at[l.Stage] = l.P50
		t.Logf("%-9s %5d  p50 %7.2f  p95 %7.2f  p99 %7.2f  max %7.2f ms after capture", l.Stage, l.Count, l.P50, l.P95, l.P99, l.Max)
		if l.P50 < last && l.Stage != core.StageDurable { // a few frames decide, and they are others
			t.Errorf("%s is %.2f ms after capture, what is before it %.2f ms", l.Stage, l.P50, last)
		}
		last = l.P50
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Fatalf("places %v, want %v", names, want)
	}
	for _, l := range stages {
		took[l.Stage] = l.P50
	}
	sum := took["detect"] + took["align"] + took["quality"] + took["liveness"] + took["embed"]
	pipeline := at["embed"] - at[core.StageBegun]
	if math.Abs(pipeline-sum) > 0.5*sum+3 { // the median of a sum is not the sum of medians on a busy machine
		t.Errorf("the pipeline takes %.2f ms of the way, its stages %.2f ms", pipeline, sum)
	}
	rest := at[core.StageMatch] - at["embed"]
	if rest > took[core.StageMatch]+1+0.1*sum {
		t.Errorf("%.2f ms between embedding and the end of the search, which takes %.2f ms: some of the way is nowhere", rest, took[core.StageMatch])
	}
	t.Logf("between begun and embed %.2f ms, the stages took %.2f ms; search and rest %.2f ms", pipeline, sum, rest)
}

// gathered makes sure that the metrics have the same places.
func gathered(t *testing.T, a *core.Appliance, way []core.Latency) {
	t.Helper()
	families, err := a.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		if f.GetName() != "vigil_sensor_latency_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "stage" {
					counts[l.GetValue()] = m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	for _, l := range way {
		if counts[l.Stage] < l.Count {
			t.Errorf("metrics have %d of %d observations of %s", counts[l.Stage], l.Count, l.Stage)
		}
	}
}
