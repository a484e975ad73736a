package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/daemon/decide"
	"vigil/infer/infertest"
	"vigil/store"
)

// opened is an open appliance with its handler; both are closed when the test ends, which takes every goroutine along.
func opened(t testing.TB, d *daemontest.Device) (*core.Appliance, http.Handler) {
	t.Helper()
	a := d.Open(t)
	h := newHandler(a, &access{}, quiet(), maxBodyBytes)
	t.Cleanup(func() {
		if err := errors.Join(h.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	})
	return a, local(declared(t, h))
}

// declared fails the test when a route answers what the document does not know.
func declared(t testing.TB, h *handler) http.Handler {
	t.Helper()
	known := map[string]bool{}
	for i := range routes {
		for _, a := range routes[i].answers() {
			known[fmt.Sprint(routes[i].Method, " ", routes[i].Path, " ", a.Status)] = true
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &recorder{ResponseWriter: w}
		h.ServeHTTP(out, r)
		if _, pattern := h.mux.Handler(r); pattern != "/" && !known[fmt.Sprint(pattern, " ", out.status)] {
			t.Errorf("%s answers %d, which the document does not know", pattern, out.status)
		}
	})
}

// send sends a request to the handler in this process.
func send(t *testing.T, h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w
}

// problem decodes an answer that must be a problem.
func problem(t *testing.T, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("no problem: %d %s", w.Code, w.Body)
	}
	if p.Status != w.Code || p.Title == "" || p.Detail == "" {
		t.Errorf("incomplete problem: %+v with status %d", p, w.Code)
	}
	return p
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// blank is a JPEG without a face.
func blank(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 64, 64)), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadRequests(t *testing.T) {
	_, h := opened(t, daemontest.New(t))
	nobody := strings.Repeat("0", 32)
	pic := toJSON(t, blank(t))
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code, detail             string
	}{
		{"no such path", "GET", "/v1/people", "", 404, "no_route", `"/v1/people"`},
		{"the root", "GET", "/", "", 404, "no_route", `"/"`},
		{"wrong method", "DELETE", "/v1/status", "", 405, "method", "only GET"},
		{"wrong method of two", "PUT", "/v1/models", "", 405, "method", "only GET, POST"},
		{"empty body", "POST", "/v1/enroll", "", 400, "bad_request", "EOF"},
		{"no JSON", "POST", "/v1/enroll", "{", 400, "bad_request", "body"},
		{"unknown field", "POST", "/v1/enroll", `{"nam":"Ann"}`, 400, "bad_request", `unknown field "nam"`},
		{"wrong type", "POST", "/v1/verify", `{"subject":1}`, 400, "bad_request", "subject"},
		{"no base64", "POST", "/v1/identify", `{"picture":"*"}`, 400, "bad_request", "base64"},
		{"another type", "POST", "/v1/identify", `<x/>`, 400, "bad_request", "body"},
		{"unknown parameter", "GET", "/v1/status?x=1", "", 400, "bad_request", `unknown parameter "x"`},
		{"parameter twice", "GET", "/v1/subjects?limit=1&limit=2", "", 400, "bad_request", "must be there once"},
		{"parameters beside JSON", "POST", "/v1/identify?dpi=500", `{}`, 400, "bad_request", "in the body"},
		{"resolution of nothing", "POST", "/v1/identify", `{"picture":"AA==","dpi":-1}`, 400, "bad_request", "dpi -1"},
		{"no such enrolment", "GET", "/v1/enrollments/x", "", 404, "no_enrollment", "given up"},
		{"enrolment of two", "POST", "/v1/enrollments", `{"name":"a","subject":"b"}`, 400, "bad_request", "not both"},
		{"enrolment of nobody", "POST", "/v1/enrollments", `{}`, 400, "invalid", "a name has"},
		{"token of no scope", "POST", "/v1/tokens", `{"name":"a","scope":"root"}`, 400, "invalid", "one of viewer"},
		{"token of no name", "POST", "/v1/tokens", `{"name":"","scope":"viewer"}`, 400, "invalid", "1 to 63"},
		{"token of the past", "POST", "/v1/tokens", `{"name":"a","scope":"viewer","expires_seconds":-1}`, 400, "bad_request", "expires_seconds"},
		{"no such token", "DELETE", "/v1/tokens/x", "", 404, "no_token", "x"},
		{"events of the future", "GET", "/v1/events?after=99999", "", 400, "bad_request", "number of the last event"},
		{"events of no number", "GET", "/v1/events?after=x", "", 400, "bad_request", "number of the last event"},
		{"two values", "POST", "/v1/identify", `{} {}`, 400, "bad_request", "behind the JSON value"},
		{"garbage behind", "POST", "/v1/identify", `{}]`, 400, "bad_request", "body"},
		{"a list", "POST", "/v1/identify", `[]`, 400, "bad_request", "array"},
		{"pictures and a sensor", "POST", "/v1/enroll", `{"name":"Ann","sensor":"door","pictures":["AA=="]}`, 400, "bad_request", "not both"},
		{"bad name", "POST", "/v1/enroll", `{"name":" Ann","pictures":["AA=="]}`, 400, "invalid", "a name has"},
		{"no such sensor", "POST", "/v1/enroll", `{"name":"Ann","sensor":"door"}`, 404, "no_sensor", `"door"`},
		{"too many pictures", "POST", "/v1/enroll", `{"name":"Ann","pictures":[` + strings.Repeat(`"AA==",`, 16) + `"AA=="]}`, 422, "samples", "at most 16"},
		{"enrol without a model", "POST", "/v1/enroll", `{"name":"Ann","pictures":[` + pic + `]}`, 503, "no_model", "vigild models import"},
		{"verify a bad id", "POST", "/v1/verify", `{"subject":"1","picture":` + pic + `}`, 400, "invalid", "32 lowercase hex digits"},
		{"verify nobody", "POST", "/v1/verify", `{"subject":"` + nobody + `","picture":` + pic + `}`, 404, "not_found", nobody},
		{"identify with a subject", "POST", "/v1/identify", `{"subject":"` + nobody + `","picture":` + pic + `}`, 400, "bad_request", "takes no subject"},
		{"identify without a model", "POST", "/v1/identify", `{"picture":` + pic + `}`, 503, "no_model", "vigild models import"},
		{"identify nothing", "POST", "/v1/identify", `{}`, 415, "picture_format", "JPEG or PNG"},
		{"limit of no number", "GET", "/v1/subjects?limit=x", "", 400, "bad_request", "1 to 1000"},
		{"limit of 0", "GET", "/v1/subjects?limit=0", "", 400, "bad_request", "1 to 1000"},
		{"limit too high", "GET", "/v1/subjects?limit=1001", "", 400, "bad_request", "1 to 1000"},
		{"after a bad id", "GET", "/v1/subjects?after=x", "", 400, "invalid", "must be an id"},
		{"delete a bad id", "DELETE", "/v1/subjects/..%2f..", "", 400, "invalid", "32 lowercase hex digits"},
		{"delete nobody", "DELETE", "/v1/subjects/" + nobody, "", 404, "not_found", nobody},
		{"export without a word", "POST", "/v1/models/x/export", `{}`, 400, "bad_request", "in_clear must be true"},
		{"export of nothing", "POST", "/v1/models/x/export", `{"in_clear":true}`, 404, "no_model_bundle", "x"},
		{"verify of nothing", "POST", "/v1/models/x/verify", "", 404, "no_model_bundle", "x"},
		{"relative folder", "POST", "/v1/models", `{"path":"models"}`, 400, "bad_request", "absolute"},
		{"no such preset", "POST", "/v1/models", `{"path":"/","preset":"x"}`, 404, "no_preset", "face-liveness"},
		{"no such folder", "POST", "/v1/models", `{"path":"/nowhere"}`, 422, "import", "/nowhere"},
		{"no such bundle", "DELETE", "/v1/models/x", "", 404, "no_model_bundle", "x"},
		{"a path as a bundle", "DELETE", "/v1/models/..%2fidentity", "", 404, "no_model_bundle", "identity"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := problem(t, send(t, h, c.method, c.path, c.body))
			if p.Status != c.status || p.Code != c.code || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("%+v, want %d %s %q", p, c.status, c.code, c.detail)
			}
		})
	}
}

func TestABodyIsBounded(t *testing.T) {
	a, _ := opened(t, daemontest.New(t))
	const limit = 4 << 10
	h := local(newHandler(a, &access{}, quiet(), limit))
	for name, body := range map[string]string{
		"value": `{"picture":"` + strings.Repeat("A", limit) + `"}`, "behind": `{}` + strings.Repeat(" ", limit),
	} {
		if p := problem(t, send(t, h, http.MethodPost, "/v1/identify", body)); p.Status != http.StatusRequestEntityTooLarge ||
			p.Code != "too_large" || !strings.Contains(p.Detail, "over 4096 bytes: send fewer or smaller pictures") {
			t.Errorf("%s: %+v", name, p)
		}
	}
	exact := `{"picture":"` + strings.Repeat("AAAA", limit/4-4) + `"}`
	exact += strings.Repeat(" ", limit-len(exact))
	if p := problem(t, send(t, h, http.MethodPost, "/v1/identify", exact)); p.Code != "picture_format" {
		t.Errorf("a body of the limit: %+v", p)
	}
}

func TestMethodsAreNamed(t *testing.T) {
	_, h := opened(t, daemontest.New(t))
	if got := send(t, h, http.MethodPut, "/v1/models", "").Header().Get("Allow"); got != "GET, POST" {
		t.Errorf("Allow: %q", got)
	}
}

func TestBadBundles(t *testing.T) {
	_, h := opened(t, daemontest.New(t))
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	wrong := filepath.Join(dir, "wrong")
	for _, d := range []string{bad, wrong} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bad, "bundle.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := infertest.Model(t).Manifest
	daemontest.WriteManifest(t, wrong, m)
	for name := range m.Files {
		if err := os.WriteFile(filepath.Join(wrong, name), []byte("weights"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for dir, code := range map[string]string{bad: "manifest", wrong: "checksum"} {
		p := problem(t, send(t, h, http.MethodPost, "/v1/models", toJSON(t, ImportRequest{Path: dir})))
		if p.Status != http.StatusUnprocessableEntity || p.Code != code {
			t.Errorf("%s: %+v", code, p)
		}
	}
}

// TestClients has the same questions for the client in this process and the one behind the socket.
func TestClients(t *testing.T) {
	before := runtime.NumGoroutine()
	d := daemontest.NewWithModel(t)
	d.Config.Policy.MaxFailures = 0
	a := d.Open(t)
	s, err := Serve(t.Context(), filepath.Join(d.Config.StateDir, "vigild.sock"), a, quiet())
	if err != nil {
		t.Fatal(err)
	}
	remote, direct := Dial(filepath.Join(d.Config.StateDir, "vigild.sock")), Direct(a)
	pics, family := daemontest.Pictures(t, "Howard_Dean", 4), readPhoto(t, "azure_identification1.jpg")

	e, err := remote.Enroll(t.Context(), EnrollRequest{Name: "Dean", Pictures: [][]byte{pics[0], family, pics[1]}})
	if err != nil || e.Samples != 2 || len(e.Refused) != 1 || e.Refused[0].Sample != 2 {
		t.Fatalf("enrol: %+v, %v", e, err)
	}
	for _, c := range []struct {
		name string
		ask  func(*Client) (any, error)
		code string // of the problem that must come; "" for none
	}{
		{"status", func(c *Client) (any, error) { s, err := c.Status(t.Context()); s.Latency = nil; return s, err }, ""},
		{"subjects", func(c *Client) (any, error) { return c.Subjects(t.Context()) }, ""},
		{"models", func(c *Client) (any, error) { return c.Models(t.Context()) }, ""},
		{"check", func(c *Client) (any, error) { r, err := c.Check(t.Context()); r.Checked = time.Time{}; return r, err }, ""},
		{"verify", func(c *Client) (any, error) { return decision(c.Verify(t.Context(), e.Subject, pics[3])) }, ""},
		{"identify", func(c *Client) (any, error) {
			list, err := c.Identify(t.Context(), pics[3])
			for i := range list {
				list[i], _ = decision(list[i], nil)
			}
			return list, err
		}, ""},
		{"duplicate", func(c *Client) (any, error) {
			return c.Enroll(t.Context(), EnrollRequest{Name: "Again", Pictures: pics[1:3]})
		}, "duplicate"},
		{"too few samples", func(c *Client) (any, error) {
			return c.Enroll(t.Context(), EnrollRequest{Name: "Few", Pictures: [][]byte{pics[3], family}})
		}, "samples"},
		{"no face", func(c *Client) (any, error) { return c.Identify(t.Context(), blank(t)) }, "no_face"},
		{"several faces", func(c *Client) (any, error) { return c.Verify(t.Context(), e.Subject, family) }, "several_faces"},
		{"half a picture", func(c *Client) (any, error) { return c.Identify(t.Context(), pics[0][:4000]) }, "picture_broken"},
		{"no picture", func(c *Client) (any, error) { return c.Identify(t.Context(), []byte("text")) }, "picture_format"},
		{"nobody", func(c *Client) (any, error) {
			return c.Verify(t.Context(), strings.Repeat("0", 32), pics[0])
		}, "not_found"},
		{"inspect", func(c *Client) (any, error) { return c.Model(t.Context(), a.Status().Models[0].ID) }, ""},
		{"verify the bundle", func(c *Client) (any, error) {
			r, err := c.VerifyModel(t.Context(), a.Status().Models[0].ID)
			for i := range r.WarmUps {
				r.WarmUps[i].Milliseconds = 0
			}
			return r, err
		}, ""},
		{"export", func(c *Client) (any, error) {
			h := sha256.New()
			err := c.ExportModel(t.Context(), a.Status().Models[0].ID, h)
			return h.Sum(nil), err
		}, ""},
		{"export nothing", func(c *Client) (any, error) { return nil, c.ExportModel(t.Context(), "nothing", io.Discard) }, "no_model_bundle"},
		{"inspect nothing", func(c *Client) (any, error) { return c.Model(t.Context(), "nothing") }, "no_model_bundle"},
		{"import again", func(c *Client) (any, error) {
			return c.ImportModel(t.Context(), ImportRequest{Path: infertest.Data(t, "models"), Preset: "face"})
		}, ""},
		{"remove the bundle in use", func(c *Client) (any, error) {
			return nil, c.RemoveModel(t.Context(), a.Status().Models[0].ID)
		}, "model_in_use"},
		{"remove a strange id", func(c *Client) (any, error) { return nil, c.RemoveModel(t.Context(), "../x?y#z") }, "no_model_bundle"},
		{"delete a strange id", func(c *Client) (any, error) { return nil, c.DeleteSubject(t.Context(), "../x?y#z") }, "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) { same(t, remote, direct, c.ask, c.code) })
	}
	few := &Problem{}
	if _, err := remote.Enroll(t.Context(), EnrollRequest{Name: "Few", Pictures: [][]byte{pics[3], family}}); !errors.As(err, &few) ||
		len(few.Refused) != 1 || few.Refused[0].Sample != 2 || !strings.Contains(few.Refused[0].Reason, "more than one face") {
		t.Errorf("the problem does not say which picture was refused: %+v", few)
	}
	if err := remote.DeleteSubject(t.Context(), e.Subject); err != nil {
		t.Error(err)
	}
	if list, err := direct.Subjects(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after the deletion: %v, %v", list, err)
	}
	remote.Close()
	direct.Close()
	if err := errors.Join(s.Close(), s.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	settled(t, "goroutines", before, goroutinesOfOurs)
}

// goroutinesOfOurs counts those that are not of the software TPM, which lives until the test's end.
func goroutinesOfOurs() int {
	stacks := make([]byte, 1<<20)
	n := 0
	for _, one := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !strings.Contains(one, "securetest.StartSWTPM") && !strings.Contains(one, "os/exec.(*Cmd)") {
			n++
		}
	}
	return n
}

// decision leaves of a decision what does not differ from one to the next.
func decision(d core.Decision, err error) (core.Decision, error) {
	d.ID, d.Time = "", time.Time{}
	return d, err
}

// same asks both clients; their answers must be alike, or the problem of the code.
func same(t *testing.T, remote, direct *Client, ask func(*Client) (any, error), code string) {
	t.Helper()
	a, errA := ask(remote)
	b, errB := ask(direct)
	if code == "" {
		if errA != nil || errB != nil || !sameButCounters(t, a, b) {
			t.Errorf("by socket %+v, %v\ndirectly %+v, %v", a, errA, b, errB)
		}
		return
	}
	var p, q *Problem
	if !errors.As(errA, &p) || !errors.As(errB, &q) || p.Code != code || !reflect.DeepEqual(p, q) {
		t.Errorf("by socket %+v, directly %+v, want %s", errA, errB, code)
	}
}

// sameButCounters compares answers as JSON without what grows with every request.
func sameButCounters(t *testing.T, a, b any) bool {
	t.Helper()
	plain := func(v any) any {
		var out any
		if err := json.Unmarshal([]byte(toJSON(t, v)), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

func readPhoto(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(infertest.Data(t, "photos", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestPaging puts more people into the store than a page holds.
func TestPaging(t *testing.T) {
	const people = maxPage + 7
	d := daemontest.New(t)
	if err := fill(t, d, people); err != nil {
		t.Fatal(err)
	}
	a, h := opened(t, d)
	list, err := Direct(a).Subjects(t.Context())
	if err != nil || len(list) != people {
		t.Fatalf("%d people, %v", len(list), err)
	}
	for i, s := range list {
		if s.Name == "" || i > 0 && list[i-1].ID >= s.ID {
			t.Fatalf("person %d: %+v", i, s)
		}
	}
	for query, want := range map[string]struct {
		people int
		more   bool
	}{
		"":                                      {defaultPage, true},
		"?limit=1":                              {1, true},
		"?limit=1000":                           {maxPage, true},
		"?limit=1000&after=" + list[6].ID:       {maxPage, true}, // ends exactly with a page: one more, empty one follows
		"?limit=1000&after=" + list[7].ID:       {maxPage - 1, false},
		"?after=" + list[people-1].ID:           {0, false},
		"?after=" + strings.Repeat("f", 32):     {0, false},
		"?after=" + strings.Repeat("0", 32):     {defaultPage, true},
		"?limit=10&after=" + list[people-11].ID: {10, true},
	} {
		w := send(t, h, http.MethodGet, "/v1/subjects"+query, "")
		var page SubjectList
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Subjects) != want.people || (page.Next != "") != want.more || page.Subjects == nil {
			t.Errorf("%q: %d people, next %q; want %+v", query, len(page.Subjects), page.Next, want)
		}
	}
}

// fill stores people without templates.
func fill(t *testing.T, d *daemontest.Device, n int) error {
	dev, err := core.OpenDevice(t.Context(), d.Config)
	if err != nil {
		return err
	}
	s, err := store.Open(store.Options{Path: core.StorePath(d.Config.StateDir), Keyring: dev.Keyring(), Logger: quiet(), Outbox: store.DefaultOutboxLimits()})
	if err != nil {
		return errors.Join(err, dev.Close())
	}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		for range n {
			p := store.Subject{ID: store.NewSubjectID(), Name: "Somebody", Created: time.Now()}
			if err := tx.PutSubject(p, []store.Template{{ModelID: "m", Values: make([]int8, 64), Scale: 1}}); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, s.Close(), dev.Close())
}

// TestBusyAndCanceled fills the engines' queue with requests that wait for one that never ends.
func TestBusyAndCanceled(t *testing.T) {
	d := daemontest.NewWithModel(t)
	d.Config.Policy.APIQueue = 1
	a, _ := opened(t, d)
	c := Direct(a)
	pic := daemontest.Pictures(t, "Howard_Dean", 1)[0]
	var mu sync.Mutex
	codes := map[string]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			code := ""
			var p *Problem
			if _, err := c.Identify(t.Context(), pic); errors.As(err, &p) {
				code = p.Code
			} else if err != nil {
				code = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	wg.Wait()
	if codes[""] == 0 || codes["overloaded"] == 0 || codes[""]+codes["overloaded"] != 16 {
		t.Errorf("answers by code: %v", codes)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var p *Problem
	if _, err := c.Identify(ctx, pic); err == nil || errors.As(err, &p) && p.Code != "canceled" {
		t.Errorf("a request that was given up: %v", err)
	}
	if list, err := c.Identify(t.Context(), pic); err != nil || len(list) == 0 || list[0].Outcome != decide.NoMatch {
		t.Errorf("the next request: %+v, %v", list, err)
	}
}

// TestASensorEnrolsOneAtATime has a camera without a face: the enrolment waits until its client leaves.
func TestASensorEnrolsOneAtATime(t *testing.T) {
	d := daemontest.NewWithModel(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "blank.jpg"), blank(t), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Config.API.RatePerSecond = 0 // it asks again and again
	d.Config.Sensors = []config.Sensor{{Name: "door", Driver: "replay", Path: dir, Rate: 20, Loop: true}}
	a, _ := opened(t, d)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := Serve(t.Context(), filepath.Join(d.Config.StateDir, "vigild.sock"), a, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := Dial(filepath.Join(d.Config.StateDir, "vigild.sock"))
	defer c.Close()
	enroll := func(ctx context.Context) string {
		_, err := c.Enroll(ctx, EnrollRequest{Name: "Nobody", Sensor: "door"})
		var p *Problem
		if errors.As(err, &p) {
			return p.Code
		}
		return err.Error()
	}
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan string, 1)
	go func() {
		code := enroll(ctx)
		for code == "sensor_busy" {
			code = enroll(ctx)
		}
		ended <- code
	}()
	await := func(want string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; {
			short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			got := enroll(short)
			cancel()
			if got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("answer %q, want %q", got, want)
			}
		}
	}
	await("sensor_busy")
	leave()
	if got := <-ended; got != context.Canceled.Error() {
		t.Errorf("the client left with %s", got)
	}
	await(context.DeadlineExceeded.Error()) // the sensor is free again: nobody is refused, but no face comes
}
