package api

import (
	"fmt"
	"path/filepath"
	"strconv"

	"vigil/daemon/core"
)

func (h *handler) enroll(r request) (any, error) {
	var q EnrollRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	who := core.Person{Name: q.Name, Subject: q.Subject}
	switch {
	case q.Name != "" && q.Subject != "":
		return nil, errTwoPeople
	case q.Sensor != "" && len(q.Pictures) > 0:
		return nil, fmt.Errorf("%w: pictures or a sensor, not both", errBadRequest)
	case q.Sensor != "":
		return h.app.EnrollPersonAt(r.Context(), who, q.Sensor)
	}
	u, err := h.app.Unit(q.Modality)
	if err != nil {
		return nil, err
	}
	if err := checkDPI(q.DPI); err != nil {
		return nil, err
	}
	pictures := make([]core.Picture, len(q.Pictures))
	for i, data := range q.Pictures {
		pictures[i] = core.Picture{Data: data, DPI: q.DPI}
	}
	return u.Enroll(r.Context(), who, pictures)
}

// errTwoPeople: it is not clear who is meant.
var errTwoPeople = fmt.Errorf("%w: a name for a new person or the subject of a known one, not both", errBadRequest)

func (h *handler) verify(r request) (any, error) {
	return h.match(r, func(u *core.Unit, q *MatchRequest, pic core.Picture) (any, error) {
		return u.Verify(r.Context(), q.Subject, pic)
	})
}

func (h *handler) identifyPicture(r request) (any, error) {
	return h.match(r, func(u *core.Unit, q *MatchRequest, pic core.Picture) (any, error) {
		if q.Subject != "" {
			return nil, fmt.Errorf("%w: identify takes no subject: verify compares with one", errBadRequest)
		}
		return u.Identify(r.Context(), pic)
	})
}

// match calls fn with the picture of a request, in whichever form it came.
func (h *handler) match(r request, fn func(*core.Unit, *MatchRequest, core.Picture) (any, error)) (any, error) {
	var q MatchRequest
	pic, done, err := h.picture(r, &q)
	if err != nil {
		return nil, err
	}
	defer done()
	u, err := h.app.Unit(q.Modality)
	if err != nil {
		return nil, err
	}
	return fn(u, &q, pic)
}

func (h *handler) subjects(r request) (any, error) {
	limit := defaultPage
	if text := r.query.Get("limit"); r.query.Has("limit") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			return nil, fmt.Errorf("%w: limit %q: 1 to %d", errBadRequest, text, maxPage)
		}
		limit = n
	}
	list, err := h.app.Subjects(r.Context(), r.query.Get("after"), limit)
	if err != nil {
		return nil, err
	}
	return page(list, limit), nil
}

func (h *handler) importModel(r request) (any, error) {
	var q ImportRequest
	if err := body(r, &q); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(q.Path) {
		return nil, fmt.Errorf("%w: path %q must be absolute", errBadRequest, q.Path)
	}
	id, err := h.app.ImportModel(r.Context(), q.Path, q.Preset)
	return Imported{id}, forImport(err)
}
