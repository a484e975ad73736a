package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"vigil/daemon/api/kserve"
	"vigil/daemon/core"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/sensors/picture"
	"vigil/store"
)

// TestEveryProblem pins the codes and statuses that programs rely on.
func TestEveryProblem(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errBadRequest, 400, "bad_request"},
		{errTooLarge, 413, "too_large"},
		{preset.ErrUnknown, 404, "no_preset"},
		{errClosing, 503, "closing"},
		{store.ErrFull, 507, "disk_full"},
		{syscall.ENOSPC, 507, "disk_full"},
		{core.ErrBusy, 503, "busy"},
		{ort.ErrNoLibrary, 503, "no_runtime"},
		{core.ErrNoModel, 503, "no_model"},
		{core.ErrModelChoice, 503, "model_choice"},
		{core.ErrNoLiveness, 503, "no_liveness"},
		{core.ErrModality, 422, "modality"},
		{core.ErrPresentationAttack, 422, "presentation_attack"},
		{core.ErrNoFace, 422, "no_face"},
		{core.ErrNoFinger, 422, "no_finger"},
		{finger.ErrFormat, 422, "picture_unfit"},
		{core.ErrOff, 503, "off"},
		{core.ErrSeveralFaces, 422, "several_faces"},
		{core.ErrQuality, 422, "quality"},
		{core.ErrSamples, 422, "samples"},
		{core.ErrDuplicate, 409, "duplicate"},
		{core.ErrNoSensor, 404, "no_sensor"},
		{core.ErrSensorBusy, 409, "sensor_busy"},
		{core.ErrNotEnrolled, 409, "no_template"},
		{core.ErrModelInUse, 409, "model_in_use"},
		{core.ErrSwapping, 409, "swapping"},
		{core.ErrCatchingUp, 409, "catching_up"},
		{core.ErrDisagrees, 422, "disagrees"},
		{core.ErrBuilding, 409, "building"},
		{core.ErrNoBuilder, 503, "no_builder"},
		{picture.ErrFormat, 415, "picture_format"},
		{picture.ErrTooLarge, 413, "picture_too_large"},
		{picture.ErrEmpty, 422, "picture_empty"},
		{picture.ErrBroken, 422, "picture_broken"},
		{infer.ErrManifest, 422, "manifest"},
		{infer.ErrTar, 422, "tar"},
		{infer.ErrChecksum, 422, "checksum"},
		{vault.ErrNotFound, 404, "no_model_bundle"},
		{vault.ErrExists, 409, "exists"},
		{store.ErrNotFound, 404, "not_found"},
		{store.ErrInvalid, 400, "invalid"},
		{forImport(fs.ErrNotExist), 422, "import"},
		{forImport(fs.ErrPermission), 422, "import"},
		{fs.ErrNotExist, 500, "internal"},
		{context.DeadlineExceeded, 503, "timeout"},
		{fmt.Errorf("%w: %w", errUnauthenticated, core.ErrNoToken), 401, "unauthenticated"},
		{errScope, 403, "scope"},
		{errRate, 429, "rate"},
		{errMedia, 415, "media_type"},
		{errOverloaded, 503, "overloaded"},
		{errNoRoute, 404, "no_route"},
		{errMethod, 405, "method"},
		{errNoEnrollment, 404, "no_enrollment"},
		{errEnrollmentBusy, 409, "enrollment_busy"},
		{kserve.ErrRequest, 400, "infer"},
		{kserve.ErrBusy, 503, "overloaded"},
		{core.ErrNoStage, 404, "no_stage"},
		{core.ErrNoToken, 404, "no_token"},
		{core.ErrTokens, 409, "token_limit"},
		{context.Canceled, 503, "canceled"},
		{errors.New("something else"), 500, "internal"},
		// Why a request failed comes before how it was cut short.
		{fmt.Errorf("%w: %w", core.ErrSamples, context.DeadlineExceeded), 422, "samples"},
		{fmt.Errorf("%w: %w", vault.ErrExists, syscall.ENOSPC), 507, "disk_full"},
	} {
		seen[c.code] = true
		w := httptest.NewRecorder()
		if err := newProblem(fmt.Errorf("cannot do it: %w", c.err), nil).write(w); err != nil {
			t.Fatal(err)
		}
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || p.Status != c.status || p.Code != c.code || p.Title != http.StatusText(c.status) || p.Detail != "cannot do it: "+c.err.Error() {
			t.Errorf("%v: status %d, %+v; want %d %s", c.err, w.Code, p, c.status, c.code)
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: content type %q", c.code, got)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (c.status == 503 || c.status == 429) {
			t.Errorf("%s: Retry-After %q", c.code, retry)
		}
	}
	for _, k := range kinds {
		if !seen[k.code] {
			t.Errorf("the code %s is not pinned", k.code)
		}
	}
}

func TestARequestAfterCloseIsRefused(t *testing.T) {
	g := newGate(1)
	h := g.wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("served") }))
	g.close()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("answer %d", w.Code)
	}
}
