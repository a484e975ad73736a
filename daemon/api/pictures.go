package api

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"vigil/daemon/core"
	"vigil/sensors"
)

// Types of bodies beside JSON. Raw pixels are described by the query.
const (
	typeJPEG = "image/jpeg"
	typePNG  = "image/png"
	typeRaw  = "application/octet-stream"
)

// maxRawBytes bounds a picture that comes as the body itself.
const maxRawBytes = 64 << 20

// picture reads the picture of a request: out of JSON into q, or from the body itself, without base64 and without a copy, the
// rest of q from the query. The picture lives until done is called.
func (h *handler) picture(r request, q *MatchRequest) (pic core.Picture, done func(), err error) {
	if isJSON(r.Request) {
		if len(r.query) > 0 {
			return pic, nil, fmt.Errorf("%w: with JSON everything stands in the body, not in the query", errBadRequest)
		}
		if err := body(r, q); err != nil {
			return pic, nil, err
		}
		return core.Picture{Data: q.Picture, DPI: q.DPI}, func() {}, checkDPI(q.DPI)
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case typeJPEG, typePNG:
		for _, name := range []string{"width", "height", "format", "full_range"} {
			if r.query.Has(name) {
				return pic, nil, fmt.Errorf("%w: %s is for %s only: a picture says it itself", errBadRequest, name, typeRaw)
			}
		}
	case typeRaw:
		if pic.Raw, err = rawOf(r.query); err != nil {
			return pic, nil, err
		}
	default:
		return pic, nil, fmt.Errorf("%w: %q: application/json, %s, %s or %s", errMedia, r.Header.Get("Content-Type"), typeJPEG, typePNG, typeRaw)
	}
	q.Subject, q.Modality = r.query.Get("subject"), r.query.Get("modality")
	if text := r.query.Get("dpi"); text != "" {
		if pic.DPI, err = strconv.ParseFloat(text, 64); err != nil {
			return pic, nil, fmt.Errorf("%w: dpi %q is no number", errBadRequest, text)
		}
		if err := checkDPI(pic.DPI); err != nil {
			return pic, nil, err
		}
	}
	if pic.Data, done, err = h.readRaw(r, pic.Raw); err != nil {
		return pic, nil, err
	}
	return pic, done, nil
}

// readRaw reads the body into a lent buffer. done gives it back, unless the request was cut short: then somebody may still
// look at it, and the collector has it.
func (h *handler) readRaw(r request, raw *core.Raw) (data []byte, done func(), err error) {
	limit := int64(maxRawBytes)
	if raw != nil {
		n, err := raw.Bytes()
		if err != nil {
			return nil, nil, err
		}
		limit = int64(n)
	}
	if limit > h.bodyBytes {
		limit = h.bodyBytes
	}
	if r.ContentLength > limit {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d are of use", errTooLarge, r.ContentLength, limit)
	}
	data, err = readAll(http.MaxBytesReader(nil, r.Body, limit), h.buffers.get(), r.ContentLength)
	if err != nil {
		h.buffers.put(data)
		return nil, nil, badBody(err)
	}
	r.uploaded()
	return data, func() {
		if r.Context().Err() == nil {
			h.buffers.put(data)
		}
	}, nil
}

// rawFormats are the layouts of pixels, as the query names them.
var rawFormats = []sensors.Format{sensors.Gray8, sensors.RGB24, sensors.NV12, sensors.YUYV}

// rawOf reads the description of raw pixels.
func rawOf(q url.Values) (*core.Raw, error) {
	var raw core.Raw
	for _, side := range []struct {
		name string
		to   *int
	}{{"width", &raw.Width}, {"height", &raw.Height}} {
		n, err := strconv.Atoi(q.Get(side.name))
		if err != nil || n < 1 || n > maxSide {
			return nil, fmt.Errorf("%w: %s %q of raw pixels: 1 to %d", errBadRequest, side.name, q.Get(side.name), maxSide)
		}
		*side.to = n
	}
	for _, f := range rawFormats {
		if f.String() == q.Get("format") {
			raw.Format = f
		}
	}
	if raw.Format == 0 {
		return nil, fmt.Errorf("%w: format %q of raw pixels: one of %v", errBadRequest, q.Get("format"), rawFormats)
	}
	switch text := q.Get("full_range"); text {
	case "", "false":
	case "true":
		raw.FullRange = true
	default:
		return nil, fmt.Errorf("%w: full_range %q: true or false", errBadRequest, text)
	}
	return &raw, nil
}

// Bounds of what a picture says of itself.
const (
	maxSide = 65535 // pixels
	maxDPI  = 5000
)

// checkDPI refuses a resolution that no reader has.
func checkDPI(dpi float64) error {
	if dpi >= 0 && dpi <= maxDPI {
		return nil
	}
	return fmt.Errorf("%w: dpi %v: above 0 to %d, or 0 for 500", errBadRequest, dpi, maxDPI)
}
