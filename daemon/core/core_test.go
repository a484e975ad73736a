package core_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/ort"
	"vigil/secure/tpm"
	"vigil/sensors/picture"
	"vigil/store"
)

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func closeApp(t testing.TB, a *core.Appliance) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// People of the public set that the tests use; each has six pictures or more in the open folds.
const (
	ann  = "Jiang_Zemin"
	bob  = "Jennifer_Garner"
	carl = "Hugo_Chavez"
)

func TestEnrollVerifyIdentify(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	ctx := t.Context()
	pics, others := daemontest.Pictures(t, ann, 6), daemontest.Pictures(t, bob, 4)
	e := must[core.Enrolled](t)(a.Enroll(ctx, "Ann Example", pics[:4]))

	dec := must[core.Decision](t)(a.Verify(ctx, e.Subject, pics[5]))
	if dec.Outcome != decide.Match || dec.Subject != e.Subject || dec.Score < dec.Threshold {
		t.Errorf("verify with the right person: %+v", dec)
	}
	dec = must[core.Decision](t)(a.Verify(ctx, e.Subject, others[0]))
	if dec.Outcome != decide.NoMatch {
		t.Errorf("verify with somebody else: %+v", dec)
	}
	list := must[[]core.Decision](t)(a.Identify(ctx, pics[4]))
	if list[0].Outcome != decide.Match || list[0].Subject != e.Subject {
		t.Errorf("identify the right person: %+v", list)
	}
	list = must[[]core.Decision](t)(a.Identify(ctx, others[1]))
	if list[0].Outcome != decide.NoMatch || list[0].Subject != "" {
		t.Errorf("identify a stranger: %+v", list)
	}
	if _, err := a.Verify(ctx, store.NewSubjectID(), pics[0]); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("verify of nobody: %v", err)
	}
	if err := a.DeleteSubject(ctx, e.Subject); err != nil {
		t.Fatal(err)
	}
	list = must[[]core.Decision](t)(a.Identify(ctx, pics[4]))
	if list[0].Outcome != decide.NoMatch {
		t.Errorf("identify after the person was erased: %+v", list)
	}
}

func TestEnrollmentRefusals(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	ctx := t.Context()
	pics, others := daemontest.Pictures(t, ann, 6), daemontest.Pictures(t, bob, 4)
	family, err := os.ReadFile(infertest.Data(t, "photos", "obama_family.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Enroll(ctx, "Mixed", [][]byte{pics[0], pics[1], others[0]}); !errors.Is(err, core.ErrSamples) || !strings.Contains(err.Error(), "same person") {
		t.Errorf("two people as one: %v", err)
	}
	if _, err := a.Enroll(ctx, "Few", pics[:1]); !errors.Is(err, core.ErrSamples) {
		t.Errorf("one sample: %v", err)
	}
	e, err := a.Enroll(ctx, "Family", [][]byte{family, family})
	if !errors.Is(err, core.ErrSamples) || len(e.Refused) != 2 || !strings.Contains(e.Refused[0].Reason, "more than one face") {
		t.Errorf("a family picture: %v, %+v", err, e)
	}
	for _, name := range []string{"", " x", "a\nb", strings.Repeat("x", 201)} {
		if _, err := a.Enroll(ctx, name, pics[:2]); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	must[core.Enrolled](t)(a.Enroll(ctx, "Ann", pics[:3]))
	if _, err := a.Enroll(ctx, "Ann again", pics[3:6]); !errors.Is(err, core.ErrDuplicate) {
		t.Errorf("the same person twice: %v", err)
	}
}

func TestTwoEnrollmentsOfOnePersonAtOnce(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	pics := daemontest.Pictures(t, ann, 6)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = a.Enroll(t.Context(), "Ann", pics[i%3:i%3+3]) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, core.ErrDuplicate) {
			t.Errorf("unexpected: %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d enrolments of one person succeeded, must be 1", won)
	}
}

func TestLockoutOutlivesARestart(t *testing.T) {
	d := daemontest.NewWithModel(t)
	d.Config.Policy.MaxFailures = 3
	ctx := t.Context()
	pics, others := daemontest.Pictures(t, ann, 5), daemontest.Pictures(t, bob, 1)
	a := d.Open(t)
	e := must[core.Enrolled](t)(a.Enroll(ctx, "Ann", pics[:3]))
	for i := range 3 {
		dec := must[core.Decision](t)(a.Verify(ctx, e.Subject, others[0]))
		if dec.Outcome != decide.NoMatch || dec.Until.IsZero() != (i < 2) {
			t.Fatalf("failure %d: %+v", i+1, dec)
		}
	}
	dec := must[core.Decision](t)(a.Verify(ctx, e.Subject, pics[4]))
	if dec.Outcome != decide.LockedOut {
		t.Fatalf("after three failures: %+v", dec)
	}
	closeApp(t, a)
	a = d.Open(t)
	defer closeApp(t, a)
	if dec = must[core.Decision](t)(a.Verify(ctx, e.Subject, pics[4])); dec.Outcome != decide.LockedOut {
		t.Fatalf("after a restart: %+v", dec)
	}
}

// hugePNG is the header of a PNG of w x h pixels, with a valid checksum.
func hugePNG(w, h uint32) []byte {
	ihdr := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	ihdr = append(binary.BigEndian.AppendUint32(ihdr, h), 8, 2, 0, 0, 0)
	out := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	out = append(out, ihdr...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(ihdr))
}

func TestBadPicturesAreNamed(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	pic := daemontest.Pictures(t, ann, 1)[0]
	hostile := bytes.Clone(pic)
	for i := 200; i < len(hostile); i += 97 {
		hostile[i] ^= 0xff
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"truncated":      {pic[:len(pic)/2], picture.ErrBroken},
		"hostile":        {hostile, picture.ErrBroken},
		"empty":          {nil, picture.ErrFormat},
		"text":           {[]byte("hello"), picture.ErrFormat},
		"0x0":            {hugePNG(0, 0), picture.ErrEmpty},
		"100 megapixels": {hugePNG(10000, 10000), picture.ErrTooLarge},
		"4 gigapixels":   {hugePNG(65535, 65535), picture.ErrTooLarge},
	} {
		if _, err := a.Identify(t.Context(), c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := a.Identify(t.Context(), pic); err != nil {
		t.Errorf("a good picture after the bad ones: %v", err)
	}
}

func TestBadModelsAreRefusedAtTheDoor(t *testing.T) {
	models := infertest.Data(t, "models")
	fixture := infertest.Data(t, "models", "fixtures", "face_detection_yunet_2023mar_int8bq.onnx")
	d := daemontest.New(t)
	a := d.Open(t)
	defer closeApp(t, a)

	bundle := func(change func(m *infer.Manifest, dir string)) string {
		dir := t.TempDir()
		m := *infertest.Model(t).Manifest
		files := map[string]infer.FileSpec{}
		for name, spec := range m.Files {
			data := must[[]byte](t)(os.ReadFile(filepath.Join(models, name)))
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
			files[name] = spec
		}
		m.Files = files
		m.Stages = append([]infer.Stage(nil), m.Stages...)
		change(&m, dir)
		daemontest.WriteManifest(t, dir, &m)
		return dir
	}
	failsAtRun := bundle(func(m *infer.Manifest, dir string) {
		daemontest.UseDetector640(t, m, dir, fixture)
	})
	flipped := bundle(func(m *infer.Manifest, dir string) {
		path := filepath.Join(dir, "mobilefacenet_foamliu.onnx")
		data := must[[]byte](t)(os.ReadFile(path))
		data[len(data)/2] ^= 1
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := a.ImportModel(t.Context(), failsAtRun, ""); err == nil || !strings.Contains(err.Error(), "warm-up run fails") {
		t.Errorf("a model that loads and cannot run: %v", err)
	}
	if _, err := a.ImportModel(t.Context(), flipped, ""); !errors.Is(err, infer.ErrChecksum) {
		t.Errorf("a model with a flipped bit: %v", err)
	}
	if _, err := a.ImportModel(t.Context(), t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "not a bundle") {
		t.Errorf("an empty folder: %v", err)
	}
	if list := imported(t, a); len(list) != 0 {
		t.Errorf("refused models are listed: %+v", list)
	}
	if _, err := a.Identify(t.Context(), hugePNG(100, 100)); !errors.Is(err, core.ErrNoModel) {
		t.Errorf("identify without a model: %v", err)
	}
}

func TestAClipOfOnePersonIsOneEvent(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	play := func(name, clip string) []core.Decision {
		w := a.Watch()
		defer w.Stop()
		c := config.Sensor{Name: name, Driver: "replay", Path: infertest.Data(t, "clips", clip), Step: true}
		if err := a.AddSensor(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if err := a.WaitSensor(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		var list []core.Decision
		for len(w.C) > 0 {
			list = append(list, <-w.C)
		}
		return list
	}
	if list := play("before", "P1/yes.15fps.mjpeg"); len(list) != 1 || list[0].Outcome != decide.NoMatch {
		t.Errorf("a stranger's visit: %+v", list)
	}
	desk := config.Sensor{Name: "desk", Driver: "replay", Path: infertest.Data(t, "clips", "P1/student.15fps.mjpeg"), Loop: true}
	if err := a.AddSensor(t.Context(), desk); err != nil {
		t.Fatal(err)
	}
	e := must[core.Enrolled](t)(a.EnrollAt(t.Context(), "P1", "desk"))
	if err := a.StopSensor("desk"); err != nil {
		t.Fatal(err)
	}
	if list := play("after", "P1/help.15fps.mjpeg"); len(list) != 1 || list[0].Subject != e.Subject {
		t.Errorf("the visit of an enrolled person: %+v", list)
	}
	if _, err := a.EnrollAt(t.Context(), "Nobody", "gone"); !errors.Is(err, core.ErrNoSensor) {
		t.Errorf("enrolment at no sensor: %v", err)
	}
}

func TestABrokenSensorDegradesAndTheRestGoesOn(t *testing.T) {
	d := daemontest.NewWithModel(t)
	d.Config.Sensors = []config.Sensor{
		{Name: "gone", Driver: "replay", Path: filepath.Join(t.TempDir(), "none.mjpeg")},
		{Name: "door", Driver: "replay", Path: infertest.Data(t, "clips", "P3", "book.15fps.mjpeg"), Step: true},
	}
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitSensor(t.Context(), "door"); err != nil {
		t.Fatal(err)
	}
	s := a.Status()
	if s.State != "degraded" || !strings.Contains(strings.Join(s.Degraded, "\n"), "sensor gone") {
		t.Errorf("status: %s %v", s.State, s.Degraded)
	}
	if len(s.Sensors) != 1 || s.Sensors[0].Frames == 0 || s.Sensors[0].State != "ended" {
		t.Errorf("the good sensor: %+v", s.Sensors)
	}
}

func TestAWrongClockIsSaid(t *testing.T) {
	d := daemontest.New(t)
	a := d.Open(t)
	closeApp(t, a) // remembers the time
	back := func() time.Time { return time.Now().Add(-48 * time.Hour) }
	a, err := core.Open(t.Context(), d.Config, core.Options{Logger: daemontest.Logger(t), Now: back})
	if err != nil {
		t.Fatal(err)
	}
	defer closeApp(t, a)
	if s := a.Status(); s.State != "degraded" || !strings.Contains(strings.Join(s.Degraded, "\n"), "set the time") {
		t.Errorf("status: %s %v", s.State, s.Degraded)
	}
}

func TestAWipedOrMissingTPMIsNamed(t *testing.T) {
	d := daemontest.New(t)
	closeApp(t, d.Open(t))
	if err := d.StopTPM(); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Open(t.Context(), d.Config, core.Options{Logger: daemontest.Logger(t)}); !errors.Is(err, tpm.ErrNoTPM) {
		t.Errorf("no TPM: %v", err)
	}
	other := daemontest.New(t) // another chip
	wrong := d.Config
	wrong.TPM.Address = other.Config.TPM.Address
	if _, err := core.Open(t.Context(), wrong, core.Options{Logger: daemontest.Logger(t)}); !errors.Is(err, tpm.ErrTPMCleared) {
		t.Errorf("another TPM: %v", err)
	}
}

func TestProofFailsWhenTheTPMGoes(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Prove(t.Context(), time.Now()); err != nil {
		t.Fatalf("a healthy device: %v", err)
	}
	if err := d.StopTPM(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.Prove(ctx, time.Now()); err == nil || !strings.Contains(err.Error(), "tpm") {
		t.Errorf("a device without its TPM: %v", err)
	}
	if s := a.Status(); s.State != "degraded" {
		t.Errorf("status: %+v", s.Degraded)
	}
}

func TestBusyIsRefusedNotQueuedForever(t *testing.T) {
	d := daemontest.NewWithModel(t)
	d.Config.Policy.APIQueue = 1
	a := d.Open(t)
	defer closeApp(t, a)
	pic := daemontest.Pictures(t, ann, 1)[0]
	var wg sync.WaitGroup
	var mu sync.Mutex
	busy, served := 0, 0
	for range 12 {
		wg.Go(func() {
			_, err := a.Identify(t.Context(), pic)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				served++
			case errors.Is(err, core.ErrBusy):
				busy++
			default:
				t.Errorf("unexpected: %v", err)
			}
		})
	}
	wg.Wait()
	if served == 0 || busy == 0 {
		t.Errorf("%d served, %d refused: both must happen with 12 callers and a queue of 1", served, busy)
	}
}

func TestAFailedSourceIsOpenedAgain(t *testing.T) {
	d := daemontest.NewWithModel(t)
	path := filepath.Join(t.TempDir(), "damaged.y4m")
	video := append([]byte("YUV4MPEG2 W64 H64 F30:1 Cmono\nFRAME\n"), make([]byte, 64*64)...)
	if err := os.WriteFile(path, append(video, "garbage"...), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Config.Sensors = []config.Sensor{{Name: "door", Driver: "replay", Path: path, Step: true}}
	a := d.Open(t)
	defer closeApp(t, a)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for degraded := false; ; {
		s := a.Status()
		degraded = degraded || s.State == "degraded" && s.Sensors[0].State == "failed"
		if degraded && s.Sensors[0].Frames >= 2 {
			return // it failed behind the first frame, was opened again, and gave the first frame again
		}
		if ctx.Err() != nil {
			t.Fatalf("degraded %v, %+v", degraded, s.Sensors)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestWithoutARuntimePeopleCanStillBeErased(t *testing.T) {
	d := daemontest.NewWithModel(t)
	a := d.Open(t)
	pics := daemontest.Pictures(t, ann, 3)
	e := must[core.Enrolled](t)(a.Enroll(t.Context(), "Ann", pics))
	closeApp(t, a)
	d.Config.Runtime.Library = filepath.Join(t.TempDir(), "none.so")
	a = d.Open(t)
	defer closeApp(t, a)
	if s := a.Status(); s.State != "degraded" || s.Runtime != "" {
		t.Errorf("status: %+v", s)
	}
	if _, err := a.Identify(t.Context(), pics[0]); !errors.Is(err, ort.ErrNoLibrary) {
		t.Errorf("identify: %v", err)
	}
	if _, err := a.ImportModel(t.Context(), t.TempDir(), "face"); !errors.Is(err, ort.ErrNoLibrary) {
		t.Errorf("import: %v", err)
	}
	if list := must[[]store.Subject](t)(a.Subjects(t.Context(), "", 10)); len(list) != 1 {
		t.Errorf("subjects: %+v", list)
	}
	if err := a.DeleteSubject(t.Context(), e.Subject); err != nil {
		t.Error(err)
	}
}
