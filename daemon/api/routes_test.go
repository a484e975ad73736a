package api

import (
	"bytes"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"vigil/daemon/api/openapi"
	"vigil/daemon/config"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTheDocument compares the document with the golden file, and has a third party judge it.
func TestTheDocument(t *testing.T) {
	got, err := Document(true)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the document differs from %s: look at the difference, and run go test -update if it is meant", golden)
	}
	doc, err := libopenapi.NewDocument(got)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := v.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("%s: %s", p.Message, p.Reason)
		}
	}
}

func TestTheValidatorFindsMistakes(t *testing.T) {
	good, err := Document(false)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := libopenapi.NewDocument(bytes.Replace(good, []byte(`"in": "header"`), []byte(`"in": "nowhere"`), 1))
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, _ := v.ValidateDocument(); ok {
		t.Error("a parameter that is nowhere is taken")
	}
}

// TestEveryRoute holds the table to its own rules: each row has one scope, one way to answer, and says what its path needs.
func TestEveryRoute(t *testing.T) {
	ids := map[string]bool{}
	for _, r := range routes {
		name := r.Method + " " + r.Path
		if i := slices.Index(scopes, r.Scope); i < 1 {
			t.Errorf("%s has the scope %q", name, r.Scope)
		}
		if (r.serve == nil) == (r.stream == nil) {
			t.Errorf("%s has %v and %v to answer", name, r.serve != nil, r.stream != nil)
		}
		if r.ID == "" || ids[r.ID] || r.Summary == "" || r.Tag == "" {
			t.Errorf("%s: id %q, summary %q, tag %q", name, r.ID, r.Summary, r.Tag)
		}
		ids[r.ID] = true
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.Path, -1) {
			if !slices.ContainsFunc(r.Params, func(p openapi.Param) bool { return p.In == openapi.Path && p.Name == m[1] }) {
				t.Errorf("%s does not describe {%s}", name, m[1])
			}
		}
		if (r.Method == http.MethodGet || r.Method == http.MethodDelete) && len(r.Bodies) > 0 {
			t.Errorf("%s has a body", name)
		}
		if r.kserve != strings.HasPrefix(r.Path, "/v2") {
			t.Errorf("%s: of KServe: %v", name, r.kserve)
		}
		for _, code := range r.codes {
			statusOf(code) // panics for one that does not exist
		}
	}
}

// TestWhoMayDoWhat sends every request with every scope. What may not be done is refused before anything is looked at.
func TestWhoMayDoWhat(t *testing.T) {
	d := daemontest.NewFake(t, fake.New(), fake.Manifest("m", false))
	d.Config.API.KServe = true
	_, h := openedBare(t, d)
	id := regexp.MustCompile(`\{\w+\}`)
	for _, r := range routes {
		if r.Path == "/v1/events" {
			continue // does not end: see the tests of events
		}
		for _, scope := range scopes {
			w := httptest.NewRecorder()
			q := httptest.NewRequestWithContext(withClient(t.Context(), &client{"k", "test", scope}), r.Method, id.ReplaceAllString(r.Path, "x"), strings.NewReader(`{"x":`))
			h.ServeHTTP(w, q)
			refused := w.Code == http.StatusForbidden || w.Code == http.StatusUnauthorized
			if refused == allows(scope, r.Scope) || w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s %s with the scope %s: %d %s", r.Method, r.Path, scope, w.Code, w.Body)
			}
			if want := http.StatusUnauthorized; scope == config.ScopeNone && (w.Code != want || w.Header().Get("WWW-Authenticate") == "") {
				t.Errorf("%s %s without a scope: %d", r.Method, r.Path, w.Code)
			}
		}
	}
}

// openedBare is opened without the right to do everything.
func openedBare(t testing.TB, d *daemontest.Device) (*handler, http.Handler) {
	t.Helper()
	a := d.Open(t)
	h := newHandler(a, &access{}, quiet(), maxBodyBytes)
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, declared(t, h)
}
