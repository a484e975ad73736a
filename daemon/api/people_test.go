package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
)

// post sends a body of a type to a handler in this process.
func post(t testing.TB, h http.Handler, path, kind string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	h.ServeHTTP(w, r)
	return w
}

// into decodes a good answer.
func into[T any](t testing.TB, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code >= 300 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

func TestEnrolmentPictureByPicture(t *testing.T) {
	_, h := opened(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", true)))
	e := into[Enrollment](t, post(t, h, "/v1/enrollments", "", []byte(`{"name":"Ann","modality":"face"}`)))
	if e.Modality != "face" || e.Wanted != 2 || time.Until(e.Expires) > enrollmentIdle || len(e.ID) != 32 {
		t.Fatalf("%+v", e)
	}
	path := "/v1/enrollments/" + e.ID
	sample := func(pic []byte) core.Sampled {
		t.Helper()
		return into[core.Sampled](t, post(t, h, path+"/samples", typePNG, pic))
	}
	if s := sample(fake.Picture(t, 1, true, true, 1)); !s.Accepted || s.Wanted != 1 || s.Samples != 1 || s.Quality == 0 {
		t.Errorf("a good one: %+v", s)
	}
	for advice, pic := range map[string][]byte{
		"quality is too low": fake.Picture(t, 1, true, false, 2), "not the person": fake.Picture(t, 5, true, true, 3), "no face": black(t),
	} {
		if s := sample(pic); s.Accepted || !strings.Contains(s.Advice, advice) || s.Samples != 1 || s.Wanted != 1 {
			t.Errorf("%s: %+v", advice, s)
		}
	}
	if p := problem(t, post(t, h, path+"/finish", "", nil)); p.Code != "samples" {
		t.Errorf("finished too early: %+v", p)
	}
	if p := problem(t, post(t, h, path+"/samples", typePNG, []byte("text"))); p.Code != "picture_format" {
		t.Errorf("no picture: %+v", p)
	}
	body := toJSON(t, SampleRequest{Picture: fake.Picture(t, 1, true, true, 4)})
	if s := into[core.Sampled](t, post(t, h, path+"/samples", "application/json", []byte(body))); !s.Accepted || s.Wanted != 0 {
		t.Errorf("a good one in JSON: %+v", s)
	}
	if got := into[Enrollment](t, send(t, h, http.MethodGet, path, "")); got.Wanted != 0 || got.Expires.Before(e.Expires) {
		t.Errorf("%+v", got)
	}
	done := into[core.Enrolled](t, post(t, h, path+"/finish", "", nil))
	if done.Samples != 2 || done.Subject == "" {
		t.Errorf("%+v", done)
	}
	if p := problem(t, post(t, h, path+"/finish", "", nil)); p.Code != "no_enrollment" {
		t.Errorf("finished twice: %+v", p)
	}
	d := into[core.Decision](t, post(t, h, "/v1/verify?subject="+done.Subject, typePNG, fake.Picture(t, 1, true, true, 5)))
	if d.Outcome != "match" {
		t.Errorf("%+v", d)
	}
}

// black is a picture without a face.
func black(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEnrolmentsAreBoundedAndEnd(t *testing.T) {
	h, _ := openedBare(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", false)))
	ann := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(withClient(t.Context(), &client{"ann", "ann", enroller}), method, path, strings.NewReader(`{"name":"Ann"}`)))
		return w
	}
	var first Enrollment
	for range maxEnrollments {
		first = into[Enrollment](t, ann(http.MethodPost, "/v1/enrollments"))
	}
	if p := problem(t, ann(http.MethodPost, "/v1/enrollments")); p.Code != "overloaded" {
		t.Errorf("%+v", p)
	}
	bob := httptest.NewRecorder()
	h.ServeHTTP(bob, httptest.NewRequestWithContext(withClient(t.Context(), &client{"bob", "bob", operator}), http.MethodGet, "/v1/enrollments/"+first.ID, nil))
	if p := problem(t, bob); p.Code != "no_enrollment" {
		t.Errorf("another client's: %+v", p)
	}
	_, release, err := h.enrollments.use(first.ID, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if p := problem(t, ann(http.MethodGet, "/v1/enrollments/"+first.ID)); p.Code != "enrollment_busy" {
		t.Errorf("two requests at once: %+v", p)
	}
	release()
	if w := ann(http.MethodDelete, "/v1/enrollments/"+first.ID); w.Code != 200 || h.enrollments.count() != maxEnrollments-1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	h.enrollments.idle = time.Millisecond // those that are touched from now on
	for id := range h.enrollments.all {
		if _, release, err := h.enrollments.use(id, "ann"); err == nil {
			release()
		}
		break
	}
	settled(t, "enrolments", maxEnrollments-2, h.enrollments.count)
	h.enrollments.close()
	if n := h.enrollments.count(); n != 0 {
		t.Errorf("%d enrolments after the end", n)
	}
	if p := problem(t, ann(http.MethodPost, "/v1/enrollments")); p.Code != "closing" {
		t.Errorf("%+v", p)
	}
}

// rgb are the pixels of a picture.
func rgb(t testing.TB, pic []byte) (pix []byte, w, h int) {
	t.Helper()
	im, err := png.Decode(bytes.NewReader(pic))
	if err != nil {
		t.Fatal(err)
	}
	b := im.Bounds()
	for y := range b.Dy() {
		for x := range b.Dx() {
			r, g, bl, _ := im.At(x, y).RGBA()
			pix = append(pix, byte(r>>8), byte(g>>8), byte(bl>>8))
		}
	}
	return pix, b.Dx(), b.Dy()
}

// TestEveryFormOfAPicture sends one picture in every form that keeps its pixels: the decisions are alike.
func TestEveryFormOfAPicture(t *testing.T) {
	a, h := opened(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", false)))
	e, err := a.Enroll(t.Context(), "Ann", [][]byte{fake.Picture(t, 1, true, true, 1), fake.Picture(t, 1, true, true, 2)})
	if err != nil {
		t.Fatal(err)
	}
	pic := fake.Picture(t, 1, true, true, 3)
	pix, width, height := rgb(t, pic)
	raw := fmt.Sprintf("width=%d&height=%d&format=RGB24", width, height)
	var want core.Decision
	for i, c := range []struct {
		path, kind string
		body       []byte
	}{
		{"/v1/verify", "application/json", []byte(toJSON(t, MatchRequest{Subject: e.Subject, Picture: pic}))},
		{"/v1/verify", "application/json; charset=utf-8", []byte(toJSON(t, MatchRequest{Subject: e.Subject, Picture: pic, Modality: "face"}))},
		{"/v1/verify?subject=" + e.Subject, typePNG, pic},
		{"/v1/verify?modality=face&subject=" + e.Subject, typeJPEG, pic}, // what it is stands in the bytes
		{"/v1/verify?" + raw + "&subject=" + e.Subject, typeRaw, pix},
	} {
		d, _ := decision(into[core.Decision](t, post(t, h, c.path, c.kind, c.body)), nil)
		if i == 0 {
			want = d
		}
		if d.Outcome != "match" || d.Score != want.Score || d.Quality != want.Quality {
			t.Errorf("%s %s: %+v, want %+v", c.path, c.kind, d, want)
		}
	}
}

func TestRawPixels(t *testing.T) {
	h, local := opened(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", false)))
	_ = h
	grey := func(n int) []byte { return bytes.Repeat([]byte{200}, n) }
	for _, c := range []struct {
		query string
		body  []byte
		code  string // "" for none
	}{
		{"?width=64&height=64&format=Gray8", grey(64 * 64), ""},
		{"?width=64&height=64&format=NV12&full_range=true", grey(64 * 64 * 3 / 2), ""},
		{"?width=64&height=64&format=YUYV&full_range=false", grey(64 * 64 * 2), ""},
		{"?width=64&height=64&format=RGB24", grey(64 * 64 * 3), ""},
		{"?width=64&height=64&format=RGB24", grey(64*64*3 - 1), "picture_broken"},
		{"?width=64&height=64&format=RGB24", grey(64*64*3 + 1), "too_large"},
		{"?width=63&height=64&format=NV12", grey(63 * 64 * 3 / 2), "picture_broken"},
		{"?width=63&height=64&format=YUYV", grey(63 * 64 * 2), "picture_broken"},
		{"?width=65535&height=65535&format=RGB24", grey(1), "picture_too_large"},
		{"?width=0&height=64&format=Gray8", nil, "bad_request"},
		{"?width=65536&height=64&format=Gray8", nil, "bad_request"},
		{"?height=64&format=Gray8", nil, "bad_request"},
		{"?width=64&height=64&format=MJPEG", nil, "bad_request"},
		{"?width=64&height=64&format=gray8", nil, "bad_request"},
		{"?width=64&height=64", nil, "bad_request"},
		{"?width=64&height=64&format=Gray8&full_range=1", nil, "bad_request"},
		{"?width=64&height=64&format=Gray8&dpi=x", nil, "bad_request"},
		{"?width=64&height=64&format=Gray8&dpi=1e9", nil, "bad_request"},
		{"?width=64&height=64&format=Gray8&modality=iris", grey(64 * 64), "modality"},
	} {
		w := post(t, local, "/v1/identify"+c.query, typeRaw, c.body)
		if c.code == "" {
			if list := into[[]core.Decision](t, w); len(list) != 1 {
				t.Errorf("%s: %+v", c.query, list)
			}
			continue
		}
		if p := problem(t, w); p.Code != c.code {
			t.Errorf("%s: %+v, want %s", c.query, p, c.code)
		}
	}
	for _, kind := range []string{"text/plain", "image/gif", "application/x-www-form-urlencoded", "image/", "x"} {
		if p := problem(t, post(t, local, "/v1/identify", kind, grey(9))); p.Code != "media_type" {
			t.Errorf("%s: %+v", kind, p)
		}
	}
	if p := problem(t, post(t, local, "/v1/identify?width=64", typeJPEG, grey(9))); p.Code != "bad_request" || !strings.Contains(p.Detail, "says it itself") {
		t.Errorf("%+v", p)
	}
	if p := problem(t, post(t, local, "/v1/tokens", typeJPEG, []byte(`{}`))); p.Code != "media_type" {
		t.Errorf("a picture for a token: %+v", p)
	}
}

// TestBodiesOfAllShareTheirMemory fills it, and gives it back.
func TestBodiesOfAllShareTheirMemory(t *testing.T) {
	h, _ := openedBare(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", false)))
	h.memory.free = 100 << 10
	pic := fake.Picture(t, 1, true, true, 1)
	ask := func(kind string, body []byte) *httptest.ResponseRecorder {
		return post(t, local(h), "/v1/identify", kind, body)
	}
	if p := problem(t, ask("", []byte(toJSON(t, MatchRequest{Picture: bytes.Repeat([]byte("x"), 100<<10)})))); p.Code != "overloaded" {
		t.Errorf("JSON: %+v", p)
	}
	if p := problem(t, ask(typePNG, append(pic, make([]byte, 200<<10)...))); p.Code != "overloaded" {
		t.Errorf("raw: %+v", p)
	}
	h.memory.free = int64(len(pic)) + 10
	for range 3 {
		if w := ask(typePNG, pic); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if h.memory.free != int64(len(pic))+10 {
		t.Errorf("%d bytes are left", h.memory.free)
	}
}

func TestBuffersAreWipedAndBounded(t *testing.T) {
	b := newBuffers()
	data, err := readAll(strings.NewReader("secret"), b.get(), -1)
	if err != nil || string(data) != "secret" {
		t.Fatalf("%q, %v", data, err)
	}
	b.put(data)
	if again := b.get(); bytes.Contains(again[:cap(again)], []byte("secret")) || cap(again) == 0 {
		t.Error("a picture stays in the buffer")
	}
	for range 2 * keptBuffers {
		b.put(make([]byte, 10))
	}
	b.put(make([]byte, keptBufferBytes+1))
	if len(b.free) != keptBuffers {
		t.Errorf("%d buffers are kept", len(b.free))
	}
	long := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, want := range []int64{-1, int64(len(long)), 5, 1 << 40} { // what was announced is no promise
		data, err := readAll(bytes.NewReader(long), nil, want)
		if err != nil || !bytes.Equal(data, long) || cap(data) > 4*len(long) {
			t.Errorf("announced %d: %d bytes in %d, %v", want, len(data), cap(data), err)
		}
	}
}

// TestAClientThatLeavesDoesNotShareItsPicture: a buffer that somebody may still look at is not lent again.
func TestAClientThatLeavesDoesNotShareItsPicture(t *testing.T) {
	h, _ := openedBare(t, daemontest.NewFake(t, fake.New(), fake.Manifest("m", false)))
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("x"))
	_, done, err := h.readRaw(request{r, func() {}, nil}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	done()
	if len(h.buffers.free) != 0 {
		t.Error("the buffer is lent again")
	}
}
