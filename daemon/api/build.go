package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"vigil/daemon/core"
)

// BuildRequest asks for the engines of a bundle.
type BuildRequest struct {
	Runtime string `json:"runtime"` // core.RuntimeTensorRT
}

// BuildLine is one line of the answer to a build: progress, or at the end the report or a problem. The answer is lines of
// JSON (application/x-ndjson); one that ends without a report or a problem was cut off.
type BuildLine struct {
	Progress *core.BuildProgress `json:"progress,omitempty"`
	Report   *core.BuildReport   `json:"report,omitempty"`
	Problem  *Problem            `json:"problem,omitempty"`
}

// buildModel builds engines and streams progress. An error before the first step is a problem like any other.
func (h *handler) buildModel(w http.ResponseWriter, r request) {
	out := &lines{w: w, h: h}
	report, err := h.build(out, r)
	switch {
	case err != nil && !out.begun:
		h.answer(w, http.StatusOK, nil, err)
		return
	case err != nil:
		out.write(BuildLine{Problem: newProblem(err, nil)})
	default:
		out.write(BuildLine{Report: &report})
	}
	h.deadline(out.err)
}

func (h *handler) build(out *lines, r request) (core.BuildReport, error) {
	var q BuildRequest
	if err := body(r, &q); err != nil {
		return core.BuildReport{}, err
	}
	if q.Runtime != core.RuntimeTensorRT {
		return core.BuildReport{}, fmt.Errorf("%w: runtime %q: engines are built for %s", errBadRequest, q.Runtime, core.RuntimeTensorRT)
	}
	return h.app.BuildEngines(r.Context(), r.PathValue("id"), func(p core.BuildProgress) { out.write(BuildLine{Progress: &p}) })
}

// lines writes JSON line by line; the client has writeTimeout for each. After an error nothing more is written.
type lines struct {
	w     http.ResponseWriter
	h     *handler
	begun bool
	err   error
}

func (l *lines) write(line BuildLine) {
	if l.err != nil {
		return
	}
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	c := http.NewResponseController(l.w)
	l.h.deadline(c.SetWriteDeadline(time.Now().Add(writeTimeout)))
	if l.err = json.NewEncoder(l.w).Encode(line); l.err != nil {
		return
	}
	if err := c.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		l.err = err
	}
}

// BuildModel builds the engines of a bundle on the device and calls progress, which may be nil, on the way.
func (c *Client) BuildModel(ctx context.Context, id string, q BuildRequest, progress func(core.BuildProgress)) (r core.BuildReport, err error) {
	answer, err := c.send(ctx, http.MethodPost, "/v1/models/"+url.PathEscape(id)+"/build", q)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, answer.Close()) }()
	for d := json.NewDecoder(answer); ; {
		var line BuildLine
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return r, wayError(ctx, fmt.Errorf("its answer was cut off: %w", io.ErrUnexpectedEOF))
		case err != nil:
			return r, wayError(ctx, err)
		case line.Problem != nil:
			return r, line.Problem
		case line.Report != nil:
			return *line.Report, nil
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}
