package core_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/builtin"
	"vigil/kernels/int8"
	"vigil/sensors/synth"
	"vigil/store"
)

// Seeds of the generated fingers that the tests use: nobody's. None is among those that the thresholds were measured on.
const (
	annIndex  = 501
	annMiddle = 502
	bobIndex  = 503
	stranger  = 504
)

// made keeps generated fingers for all tests; making one takes some tenths of a second.
var made = struct {
	sync.Mutex
	fingers map[uint64]*synth.Finger
}{fingers: map[uint64]*synth.Finger{}}

func encode(t testing.TB, g *image.Gray) core.Picture {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, g); err != nil {
		t.Fatal(err)
	}
	return core.Picture{Data: b.Bytes()}
}

// touches returns n impressions of a finger as pictures, from the first-th on.
func touches(t testing.TB, finger uint64, severity synth.Severity, first, n int) []core.Picture {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	f := made.fingers[finger]
	if f == nil {
		f = must[*synth.Finger](t)(synth.NewFinger(finger, synth.Options{}))
		made.fingers[finger] = f
	}
	list := make([]core.Picture, n)
	for i := range list {
		im := must[*synth.Impression](t)(f.Impression(uint64(first+i), synth.Preset(severity)))
		list[i] = encode(t, &image.Gray{Pix: im.Gray, Stride: im.Width, Rect: image.Rect(0, 0, im.Width, im.Height)})
	}
	return list
}

func easy(t testing.TB, finger uint64, first, n int) []core.Picture {
	t.Helper()
	return touches(t, finger, synth.Easy, first, n)
}

// blank is a reader that nobody touches.
func blank(t testing.TB) core.Picture {
	t.Helper()
	g := image.NewGray(image.Rect(0, 0, 256, 320))
	for i := range g.Pix {
		g.Pix[i] = 245
	}
	return encode(t, g)
}

func fingerUnit(t testing.TB, a *core.Appliance) *core.Unit {
	t.Helper()
	return must[*core.Unit](t)(a.Unit(core.Finger))
}

// expectIdentify expects one decision about a picture: this subject's match, or no match for "".
func expectIdentify(t *testing.T, what string, u *core.Unit, pic core.Picture, subject string) {
	t.Helper()
	list, err := u.Identify(t.Context(), pic)
	if err != nil || len(list) != 1 {
		t.Errorf("identify %s: %+v, %v", what, list, err)
		return
	}
	want := decide.NoMatch
	if subject != "" {
		want = decide.Match
	}
	d := list[0]
	if d.Outcome != want || d.Subject != subject || (d.Score >= d.Threshold) != (subject != "") {
		t.Errorf("identify %s: %+v, want %s of %q", what, d, want, subject)
	}
	if d.Modality != core.Finger || d.Model == "" || d.ID == "" || d.Quality <= 0 || d.Liveness != nil {
		t.Errorf("identify %s: the decision does not say what decided: %+v", what, d)
	}
}

// fingerStatus is the state of the finger gallery.
func fingerStatus(t testing.TB, a *core.Appliance) core.ModelStatus {
	t.Helper()
	for _, m := range a.Status().Models {
		if m.Modality == core.Finger {
			return m
		}
	}
	t.Fatal("no finger bundle is in use")
	return core.ModelStatus{}
}

func TestFingerEnrollVerifyIdentify(t *testing.T) {
	for name, severity := range map[string]synth.Severity{"easy": synth.Easy, "normal": synth.Normal} {
		t.Run(name, func(t *testing.T) {
			d := daemontest.New(t)
			a := d.Open(t)
			defer closeApp(t, a)
			u, ctx := fingerUnit(t, a), t.Context()
			of := func(finger uint64, first, n int) []core.Picture { return touches(t, finger, severity, first, n) }
			expectIdentify(t, "in an empty gallery", u, of(annIndex, 0, 1)[0], "")
			e := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Name: "Ann Example"}, of(annIndex, 0, 3)))
			if e.Samples != 3 || len(e.Refused) != 0 {
				t.Errorf("enrolled: %+v", e)
			}
			own, other := of(annIndex, 10, 2), of(bobIndex, 10, 1)[0]
			dec := must[core.Decision](t)(u.Verify(ctx, e.Subject, own[0]))
			if dec.Outcome != decide.Match || dec.Subject != e.Subject || dec.Score < dec.Threshold || dec.Modality != core.Finger {
				t.Errorf("verify with the right finger: %+v", dec)
			}
			dec = must[core.Decision](t)(u.Verify(ctx, e.Subject, other))
			if dec.Outcome != decide.NoMatch || dec.Score >= dec.Threshold {
				t.Errorf("verify with another finger: %+v", dec)
			}
			expectIdentify(t, "the enrolled finger", u, own[1], e.Subject)
			expectIdentify(t, "a stranger", u, other, "")
			if _, err := u.Verify(ctx, store.NewSubjectID(), own[0]); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("verify of nobody: %v", err)
			}
			if err := a.DeleteSubject(ctx, e.Subject); err != nil {
				t.Fatal(err)
			}
			expectIdentify(t, "an erased person", u, own[1], "")
			if m := fingerStatus(t, a); m.Subjects != 0 || m.Templates != 0 {
				t.Errorf("the gallery after the person was erased: %+v", m)
			}
		})
	}
}

func TestFingerEnrollmentRefusals(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	u, ctx := fingerUnit(t, a), t.Context()
	enrolled := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Name: "Ann"}, easy(t, annIndex, 0, 3)))
	mixed := append(easy(t, bobIndex, 0, 2), easy(t, stranger, 0, 1)...)
	empty := blank(t)
	for _, c := range []struct {
		name string
		who  core.Person
		pics []core.Picture
		want error
		says string
	}{
		{"again under another name", core.Person{Name: "Zoe"}, easy(t, annIndex, 20, 3), core.ErrDuplicate, enrolled.Subject},
		{"two fingers as one", core.Person{Name: "Bob"}, mixed, core.ErrSamples, "same person"},
		{"one sample", core.Person{Name: "Bob"}, easy(t, bobIndex, 0, 1), core.ErrSamples, "1 good samples"},
		{"nobody at the reader", core.Person{Name: "Bob"}, []core.Picture{empty, empty}, core.ErrSamples, "0 good samples"},
		{"too many pictures", core.Person{Name: "Bob"}, make([]core.Picture, core.MaxSamples+1), core.ErrSamples, "at most"},
		{"no name", core.Person{}, easy(t, bobIndex, 0, 2), store.ErrInvalid, "name"},
		{"an unknown subject", core.Person{Subject: store.NewSubjectID()}, easy(t, bobIndex, 0, 2), store.ErrNotFound, "subject"},
		{"no subject id", core.Person{Subject: "ann"}, easy(t, bobIndex, 0, 2), store.ErrInvalid, "subject"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := u.Enroll(ctx, c.who, c.pics)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.want, c.says)
			}
		})
	}
	if m := fingerStatus(t, a); m.Subjects != 1 || m.Templates != 3 {
		t.Errorf("the gallery after what was refused: %+v", m)
	}
	if n := a.Status().Subjects; n != 1 {
		t.Errorf("%d people after what was refused, want 1", n)
	}
	e, err := u.Enroll(ctx, core.Person{Name: "Bob"}, append(easy(t, bobIndex, 0, 2), empty))
	if err != nil || e.Samples != 2 || len(e.Refused) != 1 || e.Refused[0].Sample != 3 || e.Refused[0].Reason != core.ErrNoFinger.Error() {
		t.Errorf("two good pictures and a blank one: %+v, %v", e, err)
	}
}

func TestABlankReaderIsNoFinger(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	u, ctx := fingerUnit(t, a), t.Context()
	e := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Name: "Ann"}, easy(t, annIndex, 0, 2)))
	if list, err := u.Identify(ctx, blank(t)); !errors.Is(err, core.ErrNoFinger) || len(list) != 0 {
		t.Errorf("identify: %+v, %v", list, err)
	}
	if _, err := u.Verify(ctx, e.Subject, blank(t)); !errors.Is(err, core.ErrNoFinger) {
		t.Errorf("verify: %v", err)
	}
	expectIdentify(t, "the finger after nobody", u, easy(t, annIndex, 10, 1)[0], e.Subject)
}

func TestTwoFingersOfOnePerson(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	u, ctx := fingerUnit(t, a), t.Context()
	ann := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Name: "Ann"}, easy(t, annIndex, 0, 3)))
	bob := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Name: "Bob"}, easy(t, bobIndex, 0, 3)))
	middle := easy(t, annMiddle, 10, 1)[0]
	expectIdentify(t, "the second finger before it is enrolled", u, middle, "")
	e := must[core.Enrolled](t)(u.Enroll(ctx, core.Person{Subject: ann.Subject}, easy(t, annMiddle, 0, 2)))
	if e.Subject != ann.Subject || e.Samples != 2 {
		t.Errorf("the second finger: %+v", e)
	}
	if _, err := u.Enroll(ctx, core.Person{Subject: ann.Subject}, easy(t, bobIndex, 20, 2)); !errors.Is(err, core.ErrDuplicate) {
		t.Errorf("a finger of somebody else: %v", err)
	}
	both := func(when string) {
		t.Helper()
		expectIdentify(t, when+": the first finger", u, easy(t, annIndex, 10, 1)[0], ann.Subject)
		expectIdentify(t, when+": the second finger", u, middle, ann.Subject)
		expectIdentify(t, when+": somebody else", u, easy(t, bobIndex, 10, 1)[0], bob.Subject)
		expectIdentify(t, when+": a stranger", u, easy(t, stranger, 10, 1)[0], "")
		if dec := must[core.Decision](t)(u.Verify(ctx, ann.Subject, middle)); dec.Outcome != decide.Match {
			t.Errorf("%s: verify with the second finger: %+v", when, dec)
		}
		if m := fingerStatus(t, a); m.Subjects != 2 || m.Templates != 8 {
			t.Errorf("%s: the gallery: %+v", when, m)
		}
		list := must[[]store.Subject](t)(a.Subjects(ctx, "", 10))
		for _, s := range list {
			if s.ID == ann.Subject && (s.Name != "Ann" || s.Samples != 5 || s.Templates != 5) {
				t.Errorf("%s: %+v", when, s)
			}
		}
		if n := a.Status().Subjects; len(list) != 2 || n != 2 {
			t.Errorf("%s: %d people are listed, %d counted, want 2", when, len(list), n)
		}
	}
	both("at once")
	closeApp(t, a)
	a = d.Open(t)
	defer func() { closeApp(t, a) }()
	u = fingerUnit(t, a)
	both("after a restart")
	if err := a.DeleteSubject(ctx, ann.Subject); err != nil {
		t.Fatal(err)
	}
	expectIdentify(t, "the first finger of an erased person", u, easy(t, annIndex, 10, 1)[0], "")
	expectIdentify(t, "the second finger of an erased person", u, middle, "")
	expectIdentify(t, "who stays", u, easy(t, bobIndex, 10, 1)[0], bob.Subject)
}

func TestTheBuiltInFingerBundleIsInUse(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	id := must[*infer.Model](t)(builtin.Finger()).Manifest.ID
	list := must[[]core.ModelInfo](t)(a.Models())
	if len(list) != 1 {
		t.Fatalf("a new device lists %d bundles, want the one in the binary", len(list))
	}
	m := list[0]
	if m.ID != id || !m.BuiltIn || !m.InUse || m.Modality != core.Finger || m.Problem != "" || m.SealedBytes != 0 || len(m.Choices) == 0 {
		t.Errorf("the first bundle: %+v", m)
	}
	if said := m.Choices[0].Kernels != ""; said != (int8.Have() == nil) {
		t.Errorf("what runs the model in 8 bits: %q, on this processor: %v", m.Choices[0].Kernels, int8.Have())
	}
	if !(m.Verify > 0 && m.Verify <= m.Identify && m.Identify <= m.Duplicate) {
		t.Errorf("thresholds %v, %v, %v: none may be below the one before", m.Verify, m.Identify, m.Duplicate)
	}
	if r := must[core.ModelReport](t)(a.VerifyModel(t.Context(), id)); !r.Good || len(r.WarmUps) == 0 {
		t.Errorf("verify the bundle: %+v", r)
	}
	if err := a.RemoveModel(t.Context(), id); !errors.Is(err, core.ErrModelInUse) {
		t.Errorf("remove the bundle: %v", err)
	}
	s := a.Status()
	if len(s.Models) != 1 || s.Models[0] != (core.ModelStatus{Modality: core.Finger, ID: id, BuiltIn: true}) {
		t.Errorf("status names %+v", s.Models)
	}
	if s.State != "degraded" || !strings.Contains(strings.Join(s.Degraded, "\n"), core.ErrNoModel.Error()) {
		t.Errorf("a device without a face bundle: %s, %v", s.State, s.Degraded)
	}
	if _, err := a.Identify(t.Context(), blank(t).Data); !errors.Is(err, core.ErrNoModel) {
		t.Errorf("identify a face: %v", err)
	}
}

func TestStatusNamesBothModalities(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	must[core.Enrolled](t)(fingerUnit(t, a).Enroll(t.Context(), core.Person{Name: "Ann"}, easy(t, annIndex, 0, 2)))
	s := a.Status()
	if len(s.Models) != 2 || s.Models[0].Modality != core.Face || s.Models[1].Modality != core.Finger {
		t.Fatalf("status names %+v", s.Models)
	}
	if f := s.Models[0]; f.BuiltIn || f.Subjects != 0 || f.Templates != 0 {
		t.Errorf("faces: %+v", f)
	}
	if f := s.Models[1]; !f.BuiltIn || f.Subjects != 1 || f.Templates != 2 {
		t.Errorf("fingers: %+v", f)
	}
	if s.State != "ready" || s.Subjects != 1 {
		t.Errorf("status: %s, %v, %d people", s.State, s.Degraded, s.Subjects)
	}
	if u := must[*core.Unit](t)(a.Unit("")); u.Modality() != core.Face {
		t.Errorf("what is not said is %s", u.Modality())
	}
}

func TestFingersSwitchedOff(t *testing.T) {
	d := daemontest.New(t)
	d.Config.Models.Finger = "off"
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatalf("start: %v", err)
	}
	u, ctx := fingerUnit(t, a), t.Context()
	pics := easy(t, annIndex, 0, 2)
	if _, err := u.Identify(ctx, pics[0]); !errors.Is(err, core.ErrOff) {
		t.Errorf("identify: %v", err)
	}
	if _, err := u.Enroll(ctx, core.Person{Name: "Ann"}, pics); !errors.Is(err, core.ErrOff) {
		t.Errorf("enrol: %v", err)
	}
	if err := a.AddSensor(ctx, config.Sensor{Name: "reader", Driver: config.DriverSynth, Modality: core.Finger}); !errors.Is(err, core.ErrOff) {
		t.Errorf("a reader: %v", err)
	}
	s := a.Status()
	if len(s.Models) != 0 || strings.Contains(strings.Join(s.Degraded, "\n"), core.ErrOff.Error()) {
		t.Errorf("status names %+v, degraded %v: what is switched off is no trouble", s.Models, s.Degraded)
	}
	list := must[[]core.ModelInfo](t)(a.Models())
	if len(list) != 1 || !list[0].BuiltIn || list[0].InUse {
		t.Errorf("bundles: %+v", list)
	}
}

func TestADeviceOfFingersOnly(t *testing.T) {
	d := daemontest.New(t)
	d.Config.Models.Face = "off"
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.State != "ready" || len(s.Models) != 1 {
		t.Errorf("status: %s, %v, %+v", s.State, s.Degraded, s.Models)
	}
	if u := must[*core.Unit](t)(a.Unit("")); u.Modality() != core.Finger {
		t.Errorf("what is not said is %s", u.Modality())
	}
	if _, err := a.Unit("iris"); !errors.Is(err, core.ErrModality) {
		t.Errorf("another modality: %v", err)
	}
	if _, err := a.Identify(t.Context(), easy(t, annIndex, 0, 1)[0].Data); !errors.Is(err, core.ErrOff) {
		t.Errorf("identify a face: %v", err)
	}
	a.DegradeModel(errors.New("a run failed"))
	if s := a.Status(); s.State != "degraded" {
		t.Errorf("after a failed run: %s", s.State)
	}
	if err := a.Prove(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.State != "ready" {
		t.Errorf("after the models worked again: %s, %v", s.State, s.Degraded)
	}
}

// TestAReaderDecidesEveryTouch lets an enrolled finger and two strangers touch a reader in turn.
func TestAReaderDecidesEveryTouch(t *testing.T) {
	const fingers, impressions = 3, 4
	d := daemontest.New(t)
	d.Config.Models.Face = "off"
	d.Config.Policy.FrameDeadline = config.Duration(time.Minute) // a slow machine gives up no touch
	a := d.Open(t)
	defer closeApp(t, a)
	ctx := t.Context()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	e := must[core.Enrolled](t)(fingerUnit(t, a).Enroll(ctx, core.Person{Name: "Ann"}, easy(t, annIndex, 50, 3)))
	w := a.Watch()
	defer w.Stop()
	reader := config.Sensor{
		Name: "reader", Driver: config.DriverSynth, Modality: core.Finger, Seed: annIndex, Fingers: fingers,
		Impressions: impressions, FirstTouch: 10, Severity: "easy",
	}
	if err := a.AddSensor(ctx, reader); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSensor(ctx, "reader"); err != nil {
		t.Fatal(err)
	}
	if len(w.C) != fingers*impressions {
		t.Errorf("%d decisions about %d touches", len(w.C), fingers*impressions)
	}
	for i := 0; len(w.C) > 0; i++ {
		dec, finger := <-w.C, annIndex+i/impressions
		if want := fmt.Sprintf("%d_%d", finger, 10+i%impressions); dec.Label != want {
			t.Errorf("decision %d is about touch %s, want %s", i+1, dec.Label, want)
		}
		outcome, subject := decide.NoMatch, ""
		if finger == annIndex {
			outcome, subject = decide.Match, e.Subject
		}
		if dec.Outcome != outcome || dec.Subject != subject {
			t.Errorf("touch %s: %+v, want %s", dec.Label, dec, outcome)
		}
		if dec.Frames != 1 || dec.Sensor != "reader" || dec.Modality != core.Finger || dec.Operation != decide.Identify {
			t.Errorf("touch %s: %+v", dec.Label, dec)
		}
	}
	want := core.SensorStatus{
		Name: "reader", Driver: config.DriverSynth, Modality: core.Finger, State: "ended", Frames: fingers * impressions, Copies: fingers * impressions,
	}
	s := a.Status()
	if len(s.Sensors) != 1 || len(s.Sensors[0].Way) == 0 {
		t.Fatalf("the reader is %+v", s.Sensors)
	}
	s.Sensors[0].Way = nil
	if !reflect.DeepEqual(s.Sensors[0], want) {
		t.Errorf("the reader is %+v, want %+v", s.Sensors, want)
	}
}

// TestARecordingOfAReaderLosesNoTouch plays pictures far faster than they are decided.
func TestARecordingOfAReaderLosesNoTouch(t *testing.T) {
	d := daemontest.New(t)
	d.Config.Policy.FrameDeadline = config.Duration(time.Minute) // a slow machine gives up no touch
	a := d.Open(t)
	defer closeApp(t, a)
	ctx, dir := t.Context(), t.TempDir()
	pics := append(easy(t, annIndex, 0, 4), easy(t, bobIndex, 0, 4)...)
	for i, p := range pics {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.png", i)), p.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w := a.Watch()
	defer w.Stop()
	reader := config.Sensor{Name: "reader", Driver: config.DriverReplay, Modality: core.Finger, Path: dir, Rate: 1000}
	if err := a.AddSensor(ctx, reader); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSensor(ctx, "reader"); err != nil {
		t.Fatal(err)
	}
	s := a.Status().Sensors[0]
	if len(w.C) != len(pics) || s.Frames != uint64(len(pics)) || s.Dropped != 0 {
		t.Errorf("%d decisions about %d touches: %+v", len(w.C), len(pics), s)
	}
}

func TestEnrollmentAtAReader(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)
	u, ctx := fingerUnit(t, a), t.Context()
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	// enrol lets fingers from a seed on touch a reader, each so many times, while a person is enrolled there.
	enrol := func(who core.Person, finger int64, impressions int) (core.Enrolled, error) {
		t.Helper()
		reader := config.Sensor{
			Name: "reader", Driver: config.DriverSynth, Modality: core.Finger, Seed: finger, Impressions: impressions, Rate: 20,
		}
		if err := a.AddSensor(ctx, reader); err != nil {
			t.Fatal(err)
		}
		e, err := a.EnrollPersonAt(ctx, who, "reader")
		if err := a.StopSensor("reader"); err != nil {
			t.Fatal(err)
		}
		return e, err
	}
	ann := must[core.Enrolled](t)(enrol(core.Person{Name: "Ann"}, annIndex, 1000))
	if ann.Samples != d.Config.Policy.EnrollSamples {
		t.Errorf("enrolled: %+v", ann)
	}
	expectIdentify(t, "the enrolled finger", u, easy(t, annIndex, 5000, 1)[0], ann.Subject)
	second := must[core.Enrolled](t)(enrol(core.Person{Subject: ann.Subject}, annMiddle, 1000))
	if second.Subject != ann.Subject {
		t.Errorf("the second finger: %+v", second)
	}
	expectIdentify(t, "the second finger", u, easy(t, annMiddle, 5000, 1)[0], ann.Subject)
	if _, err := enrol(core.Person{Name: "Zoe"}, annIndex, 1000); !errors.Is(err, core.ErrDuplicate) {
		t.Errorf("again under another name: %v", err)
	}
	_, err := enrol(core.Person{Name: "Crowd"}, bobIndex, 1)
	if !errors.Is(err, core.ErrSamples) || !strings.Contains(err.Error(), "same person") {
		t.Errorf("another finger at every touch: %v", err)
	}
	if _, err := a.EnrollPersonAt(ctx, core.Person{Subject: store.NewSubjectID()}, "reader"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown subject: %v", err)
	}
	if _, err := a.EnrollPersonAt(ctx, core.Person{Name: "Bob"}, "reader"); !errors.Is(err, core.ErrNoSensor) {
		t.Errorf("at no reader: %v", err)
	}
	if m := fingerStatus(t, a); m.Subjects != 1 || m.Templates != 4 {
		t.Errorf("the gallery: %+v", m)
	}
}
