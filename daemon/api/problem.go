package api

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"syscall"

	"vigil/daemon/core"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/finger"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/sensors/picture"
	"vigil/store"
)

// Errors of the interface itself.
var (
	errBadRequest = errors.New("the request cannot be used")
	errTooLarge   = errors.New("the request is too large")
	errImport     = errors.New("cannot import")
	errClosing    = errors.New("vigild is stopping: try again when it runs")
)

// kinds maps errors to answers, the first that fits.
var kinds = []struct {
	err    error
	status int
	code   string
}{
	{errBadRequest, http.StatusBadRequest, "bad_request"},
	{errTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{preset.ErrUnknown, http.StatusNotFound, "no_preset"},
	{errClosing, http.StatusServiceUnavailable, "closing"},
	{store.ErrFull, http.StatusInsufficientStorage, "disk_full"},
	{syscall.ENOSPC, http.StatusInsufficientStorage, "disk_full"},
	{core.ErrBusy, http.StatusServiceUnavailable, "busy"},
	{ort.ErrNoLibrary, http.StatusServiceUnavailable, "no_runtime"},
	{core.ErrNoModel, http.StatusServiceUnavailable, "no_model"},
	{core.ErrModelChoice, http.StatusServiceUnavailable, "model_choice"},
	{core.ErrNoLiveness, http.StatusServiceUnavailable, "no_liveness"},
	{core.ErrModality, http.StatusUnprocessableEntity, "modality"},
	{core.ErrPresentationAttack, http.StatusUnprocessableEntity, "presentation_attack"},
	{core.ErrNoFace, http.StatusUnprocessableEntity, "no_face"},
	{core.ErrNoFinger, http.StatusUnprocessableEntity, "no_finger"},
	{finger.ErrFormat, http.StatusUnprocessableEntity, "picture_unfit"},
	{core.ErrOff, http.StatusServiceUnavailable, "off"},
	{core.ErrSeveralFaces, http.StatusUnprocessableEntity, "several_faces"},
	{core.ErrQuality, http.StatusUnprocessableEntity, "quality"},
	{core.ErrSamples, http.StatusUnprocessableEntity, "samples"},
	{core.ErrDuplicate, http.StatusConflict, "duplicate"},
	{core.ErrNoSensor, http.StatusNotFound, "no_sensor"},
	{core.ErrSensorBusy, http.StatusConflict, "sensor_busy"},
	{core.ErrNotEnrolled, http.StatusConflict, "no_template"},
	{core.ErrModelInUse, http.StatusConflict, "model_in_use"},
	{core.ErrBuilding, http.StatusConflict, "building"},
	{core.ErrNoBuilder, http.StatusServiceUnavailable, "no_builder"},
	{picture.ErrFormat, http.StatusUnsupportedMediaType, "picture_format"},
	{picture.ErrTooLarge, http.StatusRequestEntityTooLarge, "picture_too_large"},
	{picture.ErrEmpty, http.StatusUnprocessableEntity, "picture_empty"},
	{picture.ErrBroken, http.StatusUnprocessableEntity, "picture_broken"},
	{infer.ErrManifest, http.StatusUnprocessableEntity, "manifest"},
	{infer.ErrTar, http.StatusUnprocessableEntity, "tar"},
	{infer.ErrChecksum, http.StatusUnprocessableEntity, "checksum"},
	{vault.ErrNotFound, http.StatusNotFound, "no_model_bundle"},
	{vault.ErrExists, http.StatusConflict, "exists"},
	{store.ErrNotFound, http.StatusNotFound, "not_found"},
	{store.ErrInvalid, http.StatusBadRequest, "invalid"},
	{errImport, http.StatusUnprocessableEntity, "import"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout"},
	{context.Canceled, http.StatusServiceUnavailable, "canceled"}, // the client is gone, or vigild stops
}

func classify(err error) (status int, code string) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.status, k.code
		}
	}
	return http.StatusInternalServerError, "internal"
}

// importError adds what a path error of an import means; a bundle that cannot be read is the caller's fault, not ours.
type importError struct{ err error }

func (e importError) Error() string   { return e.err.Error() }
func (e importError) Unwrap() []error { return []error{e.err, errImport} }

func forImport(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return importError{err}
	}
	return err
}

// newProblem describes an error; see kinds.
func newProblem(err error, refused []core.Refused) *Problem {
	status, code := classify(err)
	return &Problem{Title: http.StatusText(status), Status: status, Detail: err.Error(), Code: code, Refused: refused}
}

func (p *Problem) write(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	return json.NewEncoder(w).Encode(p)
}
