package api

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"vigil/daemon/api/kserve"
	"vigil/daemon/config"
)

// TestKServe drives the models of a device over every way.
func TestKServe(t *testing.T) {
	s := serveFake(t, defaultBounds(), func(c *config.Config) {
		c.API.KServe = true
		c.API.TCP.Clients[0].Scope = config.ScopeOperator
	})
	input := make([]byte, 4*3*64*64)
	for i := range 3 * 64 * 64 {
		binary.LittleEndian.PutUint32(input[4*i:], 0x42c80000) // 100
	}
	head := `{"inputs":[{"name":"x","shape":[1,3,64,64],"datatype":"FP32","parameters":{"binary_data_size":` + strconv.Itoa(len(input)) + `}}],` +
		`"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`
	for _, way := range ways {
		for path, want := range map[string]string{
			"/v2": `"extensions":["binary_tensor_data"]`, "/v2/health/live": "true", "/v2/health/ready": "true",
			"/v2/models/m.embed": `"inputs":[{"name":"x","datatype":"FP32","shape":[1,3,64,64]}]`, "/v2/models/m.embed/ready": "true",
		} {
			if resp, body := s.fetch(t, way, "desk", http.MethodGet, path, "", nil); resp.StatusCode != 200 || !strings.Contains(string(body), want) {
				t.Errorf("%s %s: %s %s", way, path, resp.Status, body)
			}
		}
		for path, want := range map[string]int{"/v2/models/m.align": 404, "/v2/models/x.embed/ready": 404, "/v2/models": 404} {
			resp, body := s.fetch(t, way, "desk", http.MethodGet, path, "", nil)
			var f kserve.Failure
			if err := json.Unmarshal(body, &f); err != nil || f.Error == "" || resp.StatusCode != want {
				t.Errorf("%s %s: %s %s", way, path, resp.Status, body)
			}
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url(way, "/v2/models/m.embed/infer"), bytes.NewReader(append([]byte(head), input...)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(kserve.HeaderLength, strconv.Itoa(len(head)))
		resp, err := s.http(t, way, "desk").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		resp.Body.Close()
		n, bad := strconv.Atoi(resp.Header.Get(kserve.HeaderLength))
		if err != nil || bad != nil || resp.StatusCode != 200 || b.Len()-n != 4*32 {
			t.Fatalf("%s: %s %q", way, resp.Status, b.Bytes())
		}
		// Red of 100 is person 3: see the fake embedder.
		if got := binary.LittleEndian.Uint32(b.Bytes()[n+4*3:]); got != 0x3f800000 {
			t.Errorf("%s: value 3 is %x", way, got)
		}
	}
}

// TestKServeIsOff unless it is switched on, and for operators only.
func TestKServeIsOff(t *testing.T) {
	s := serveFake(t, defaultBounds(), nil)
	if resp, _ := s.fetch(t, "socket 1", "", http.MethodGet, "/v2", "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("off: %s", resp.Status)
	}
	on := serveFake(t, defaultBounds(), func(c *config.Config) { c.API.KServe = true })
	resp, body := on.fetch(t, "TLS 1", "desk", http.MethodGet, "/v2", "", nil)
	if resp.StatusCode != http.StatusForbidden || !strings.HasPrefix(string(body), `{"error":`) {
		t.Errorf("an enroller: %s %s", resp.Status, body)
	}
}
