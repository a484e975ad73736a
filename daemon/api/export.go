package api

import (
	"fmt"
	"net/http"
	"time"
)

// exportModel streams a bundle as a tar. An error before the first byte is a problem like any other; after it the
// connection is cut, so that nobody takes half a tar for a whole one.
func (h *handler) exportModel(w http.ResponseWriter, r request) {
	out := &tarAnswer{w: w, h: h, timeout: writeTimeout}
	err := h.export(out, r)
	switch {
	case err == nil:
	case !out.begun:
		h.answer(w, http.StatusOK, nil, err)
	default:
		h.log.Error("export was cut off", "model", r.PathValue("id"), "err", err)
		panic(http.ErrAbortHandler)
	}
}

func (h *handler) export(out *tarAnswer, r request) error {
	var q ExportRequest
	if err := body(r, &q); err != nil {
		return err
	}
	if !q.InClear {
		return fmt.Errorf("%w: an export gives the weights away in clear: in_clear must be true", errBadRequest)
	}
	return h.app.ExportModel(r.Context(), r.PathValue("id"), out)
}

// tarAnswer writes a tar; the client has a time for each piece of it.
type tarAnswer struct {
	w       http.ResponseWriter
	h       *handler
	timeout time.Duration
	begun   bool
}

// pieceBytes is how much is written under one deadline.
const pieceBytes = 1 << 20

// Write implements io.Writer.
func (t *tarAnswer) Write(p []byte) (n int, err error) {
	if !t.begun {
		t.begun = true
		t.w.Header().Set("Content-Type", "application/x-tar")
	}
	for len(p) > 0 && err == nil {
		var k int
		t.h.deadline(http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(t.timeout)))
		k, err = t.w.Write(p[:min(len(p), pieceBytes)])
		n, p = n+k, p[k:]
	}
	return n, err
}
