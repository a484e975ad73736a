package api

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"vigil/daemon/api/kserve"
	"vigil/daemon/core"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/sensors/picture"
	"vigil/store"
)

// Errors of the interface itself.
var (
	errBadRequest      = errors.New("the request cannot be used")
	errUnauthenticated = errors.New("who asks is not known, or may not ask")
	errScope           = errors.New("this client may not do that")
	errRate            = errors.New("too many requests of one client")
	errMedia           = errors.New("the body has a type that is of no use here")
	errOverloaded      = errors.New("vigild is overloaded: try again later")
	errNoRoute         = errors.New("this interface has no")
	errMethod          = errors.New("does not know the method")
	errNoEnrollment    = errors.New("no such enrolment in progress")
	errEnrollmentBusy  = errors.New("the enrolment is busy with another request")
	errTooLarge        = errors.New("the request is too large")
	errImport          = errors.New("cannot import")
	errClosing         = errors.New("vigild is stopping: try again when it runs")
)

// kinds maps errors to answers, the first that fits.
var kinds = []struct {
	err    error
	status int
	code   string
}{
	{errBadRequest, http.StatusBadRequest, "bad_request"},
	{errUnauthenticated, http.StatusUnauthorized, "unauthenticated"},
	{errScope, http.StatusForbidden, "scope"},
	{errRate, http.StatusTooManyRequests, "rate"},
	{errMedia, http.StatusUnsupportedMediaType, "media_type"},
	{errNoRoute, http.StatusNotFound, "no_route"},
	{errMethod, http.StatusMethodNotAllowed, "method"},
	{errNoEnrollment, http.StatusNotFound, "no_enrollment"},
	{errEnrollmentBusy, http.StatusConflict, "enrollment_busy"},
	{errTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{errOverloaded, http.StatusServiceUnavailable, "overloaded"},
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
	{infer.ErrFormat, http.StatusUnprocessableEntity, "picture_unfit"},
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
	{core.ErrSwapping, http.StatusConflict, "swapping"},
	{core.ErrCatchingUp, http.StatusConflict, "catching_up"},
	{core.ErrDisagrees, http.StatusUnprocessableEntity, "disagrees"},
	{core.ErrNoBuilder, http.StatusServiceUnavailable, "no_builder"},
	{picture.ErrFormat, http.StatusUnsupportedMediaType, "picture_format"},
	{picture.ErrTooLarge, http.StatusRequestEntityTooLarge, "picture_too_large"},
	{picture.ErrEmpty, http.StatusUnprocessableEntity, "picture_empty"},
	{picture.ErrBroken, http.StatusUnprocessableEntity, "picture_broken"},
	{infer.ErrManifest, http.StatusUnprocessableEntity, "manifest"},
	{infer.ErrTar, http.StatusUnprocessableEntity, "tar"},
	{infer.ErrChecksum, http.StatusUnprocessableEntity, "checksum"},
	{kserve.ErrRequest, http.StatusBadRequest, "infer"},
	{kserve.ErrBusy, http.StatusServiceUnavailable, "overloaded"},
	{core.ErrNoStage, http.StatusNotFound, "no_stage"},
	{core.ErrNoToken, http.StatusNotFound, "no_token"},
	{core.ErrTokens, http.StatusConflict, "token_limit"},
	{vault.ErrNotFound, http.StatusNotFound, "no_model_bundle"},
	{vault.ErrExists, http.StatusConflict, "exists"},
	{store.ErrNotFound, http.StatusNotFound, "not_found"},
	{store.ErrInvalid, http.StatusBadRequest, "invalid"},
	{errImport, http.StatusUnprocessableEntity, "import"},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "timeout"}, // the client's own, see deadlineHeader
	{context.Canceled, http.StatusServiceUnavailable, "canceled"},        // the client is gone, or vigild stops
}

// laterError is an error that knows when the request would be welcome, such as a scheduler's that refuses what cannot be done
// in time.
type laterError interface {
	error
	RetryAfter() time.Duration
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

// newProblem describes an error; see kinds. An error that says when to come again is "overloaded", whatever it is else.
func newProblem(err error, refused []core.Refused) *Problem {
	p := &Problem{Detail: err.Error(), Refused: refused}
	var later laterError
	var rated *rateError
	switch {
	case errors.As(err, &later):
		p.Status, p.Code, p.retry = http.StatusServiceUnavailable, "overloaded", later.RetryAfter()
	case errors.As(err, &rated):
		p.Status, p.Code, p.retry = http.StatusTooManyRequests, "rate", rated.wait
	default:
		p.Status, p.Code = classify(err)
	}
	p.Title = http.StatusText(p.Status)
	return p
}

func (p *Problem) write(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/problem+json")
	p.head(w)
	return json.NewEncoder(w).Encode(p)
}

// writeKServe writes the problem in the form of KServe's protocol.
func (p *Problem) writeKServe(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	p.head(w)
	return json.NewEncoder(w).Encode(kserve.Failure{Error: p.Detail})
}

func (p *Problem) head(w http.ResponseWriter) {
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		seconds := max(1, math.Ceil(p.retry.Seconds()))
		w.Header().Set("Retry-After", strconv.FormatFloat(seconds, 'f', 0, 64))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="vigil"`) // RFC 6750
	}
	w.WriteHeader(p.Status)
}
