package core_test

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest"
)

// smaller shrinks a JPEG, as if the person stood farther away.
func smaller(t *testing.T, data []byte, times int) []byte {
	t.Helper()
	src, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	b := src.Bounds()
	dst := image.NewNRGBA(image.Rect(0, 0, b.Dx(), b.Dy())) // a border about it keeps the size of the picture
	for y := range b.Dy() / times {
		for x := range b.Dx() / times {
			var sum [3]int
			for i := range times * times {
				r, g, bl, _ := src.At(x*times+i%times, y*times+i/times).RGBA()
				sum[0], sum[1], sum[2] = sum[0]+int(r>>8), sum[1]+int(g>>8), sum[2]+int(bl>>8)
			}
			n := times * times
			dst.SetNRGBA(b.Dx()/4+x, b.Dy()/4+y, color.NRGBA{uint8(sum[0] / n), uint8(sum[1] / n), uint8(sum[2] / n), 255})
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, dst); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestAnswersSayHowGoodThePictureIs: components and guidance in the answers to verify, identify and enrol, and nowhere else.
func TestAnswersSayHowGoodThePictureIs(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	ctx := t.Context()
	watcher := a.Watch()
	defer watcher.Stop()
	pics := daemontest.Pictures(t, ann, 6)
	far := smaller(t, pics[5], 2)

	e := must[core.Enrolled](t)(a.Enroll(ctx, "Ann", [][]byte{pics[0], pics[1], smaller(t, pics[2], 3), pics[3]}))
	if len(e.Taken)+len(e.Refused) != 4 || len(e.Taken) != e.Samples || e.Taken[0].Assessment == nil || e.Taken[0].Quality <= 0 {
		t.Fatalf("%+v", e)
	}
	for _, r := range e.Refused {
		if r.Sample != 3 || r.Assessment != nil && r.Assessment.Guidance != "come_closer" {
			t.Errorf("refused: %+v: %+v", r, r.Assessment)
		}
	}
	near := must[core.Decision](t)(a.Verify(ctx, e.Subject, pics[5]))
	list := must[[]core.Decision](t)(a.Identify(ctx, far))
	for i, q := range []*core.Assessment{near.Assessment, list[0].Assessment} {
		if q == nil || len(q.Components) < 12 {
			t.Fatalf("answer %d: %+v", i, q)
		}
		for name, c := range q.Components {
			if c.Value > 100 || c.Unit == "" {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	if q := near.Assessment; q.Guidance != "" || q.Worst != "" {
		t.Errorf("a good picture: %q by %q: %+v", q.Guidance, q.Worst, q.Components)
	}
	if q := list[0].Assessment; q.Guidance != "come_closer" || q.Worst != "InterEyeDistance" || q.Components[q.Worst].Unit != "px" ||
		q.Components[q.Worst].Measured > 28 || q.Components[q.Worst].Value >= near.Assessment.Components[q.Worst].Value {
		t.Errorf("from far away: %+v", q)
	}
	for range 2 {
		if w := <-watcher.C; w.Assessment != nil {
			t.Errorf("the assessment left the answer: %+v", w)
		}
	}
}

func TestAnswersSayHowGoodThePrintIs(t *testing.T) {
	data, err := os.ReadFile(infertest.Data(t, "fingerprints", "fvc2002_DB1_B", "101_1.png"))
	if err != nil {
		t.Fatal(err)
	}
	a := daemontest.NewWithModel(t).Open(t)
	defer closeApp(t, a)
	u := fingerUnit(t, a)
	list := must[[]core.Decision](t)(u.Identify(t.Context(), core.Picture{Data: data}))
	q := list[0].Assessment
	if q == nil || q.Guidance != "" || q.Components["Coverage"].Unit != "mm2" || q.Components["Coverage"].Measured < 100 || len(q.Components) != 6 {
		t.Errorf("%+v", q)
	}
}
