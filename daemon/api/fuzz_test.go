package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"vigil/daemon/daemontest"
	"vigil/infer/infertest"
)

// FuzzRequests sends bodies to a device without a model. Whatever comes, the answer is a good one or a problem with a
// code of its own; "internal" is none.
func FuzzRequests(f *testing.F) {
	_, h := opened(f, daemontest.New(f))
	paths := []string{"/v1/enroll", "/v1/verify", "/v1/identify", "/v1/models", "/v1/enrollments", "/v1/tokens",
		"/v1/identify?width=8&height=8&format=NV12"}
	kinds := []string{"", "", "", "", "", "", typeRaw}
	files, err := filepath.Glob(filepath.Join(infertest.Data(f, "faces", "lfw", "Hu_Jintao"), "*.jpg"))
	if err != nil || len(files) == 0 {
		f.Fatal("no pictures", err)
	}
	real, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	real = real[:700] // the header and some lines: large inputs make the fuzzer slow
	for _, v := range []any{
		EnrollRequest{Name: "Ann", Pictures: [][]byte{real, real[:100]}}, EnrollRequest{Name: "Ann", Sensor: "door"},
		MatchRequest{Subject: "00112233445566778899aabbccddeeff", Picture: real}, MatchRequest{Picture: real[:200]},
		ImportRequest{Path: "/nowhere", Preset: "face"}, ImportRequest{Path: "."}, EnrollmentRequest{Name: "Ann", Modality: "finger"}, TokenRequest{Name: "a", Scope: viewer}, struct{}{},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		for i := range paths {
			f.Add(byte(i), data)
		}
	}
	f.Fuzz(func(t *testing.T, path byte, body []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, paths[int(path)%len(paths)], bytes.NewReader(body))
		r.Header.Set("Content-Type", kinds[int(path)%len(paths)])
		if kinds[int(path)%len(paths)] == "" {
			r.Header.Del("Content-Type")
		}
		h.ServeHTTP(w, r)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatalf("answer %d is no JSON: %q", w.Code, w.Body)
		}
		if w.Code >= 300 && (p.Code == "" || p.Code == "internal" || p.Status != w.Code || p.Detail == "") {
			t.Errorf("%s: %+v", body, p)
		}
	})
}
