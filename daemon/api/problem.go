package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"vigil/daemon/core"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/sensors/picture"
	"vigil/store"
)

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"` // stable, for programs
}

// Error implements error, for the client.
func (p *Problem) Error() string { return p.Detail }

// kinds maps errors to answers, the first that fits.
var kinds = []struct {
	err    error
	status int
	code   string
}{
	{core.ErrBusy, http.StatusServiceUnavailable, "busy"},
	{core.ErrNoModel, http.StatusServiceUnavailable, "no_model"},
	{core.ErrNoFace, http.StatusUnprocessableEntity, "no_face"},
	{core.ErrSeveralFaces, http.StatusUnprocessableEntity, "several_faces"},
	{core.ErrQuality, http.StatusUnprocessableEntity, "quality"},
	{core.ErrSamples, http.StatusUnprocessableEntity, "samples"},
	{core.ErrDuplicate, http.StatusConflict, "duplicate"},
	{core.ErrNoSensor, http.StatusNotFound, "no_sensor"},
	{core.ErrSensorBusy, http.StatusConflict, "sensor_busy"},
	{picture.ErrFormat, http.StatusUnsupportedMediaType, "picture_format"},
	{picture.ErrTooLarge, http.StatusRequestEntityTooLarge, "picture_too_large"},
	{picture.ErrEmpty, http.StatusUnprocessableEntity, "picture_empty"},
	{picture.ErrBroken, http.StatusUnprocessableEntity, "picture_broken"},
	{infer.ErrManifest, http.StatusUnprocessableEntity, "manifest"},
	{infer.ErrChecksum, http.StatusUnprocessableEntity, "checksum"},
	{vault.ErrNotFound, http.StatusNotFound, "not_found"},
	{vault.ErrExists, http.StatusConflict, "exists"},
	{store.ErrNotFound, http.StatusNotFound, "not_found"},
	{store.ErrInvalid, http.StatusBadRequest, "invalid"},
	{store.ErrFull, http.StatusInsufficientStorage, "disk_full"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, "timeout"},
}

func classify(err error) (status int, code string) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k.status, k.code
		}
	}
	return http.StatusInternalServerError, "internal"
}

func fail(w http.ResponseWriter, status int, code string, err error) {
	w.Header().Set("Content-Type", "application/problem+json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	p := Problem{Title: http.StatusText(status), Status: status, Detail: err.Error(), Code: code}
	if err := json.NewEncoder(w).Encode(p); err != nil {
		slog.Debug("client went away", "err", err)
	}
}
