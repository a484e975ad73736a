package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"vigil/daemon/api/kserve"
	"vigil/daemon/core"
	"vigil/infer"
)

// stages lends the models of the appliance to kserve. It remembers what the bundles in use have, for as long as they are the
// same.
type stages struct {
	app *core.Appliance

	mu   sync.Mutex
	of   []string // bundles that list is of
	list []core.StageRef
}

func (s *stages) find(name string) (core.StageRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.app.BundlesInUse(); s.list == nil || !slices.Equal(now, s.of) {
		list, err := s.app.Stages()
		if err != nil {
			return core.StageRef{}, err
		}
		s.of, s.list = now, list
	}
	for _, ref := range s.list {
		if ref.Bundle+"."+ref.Stage == name {
			return ref, nil
		}
	}
	return core.StageRef{}, fmt.Errorf("%w: %q: names are BUNDLE.STAGE", core.ErrNoStage, name)
}

// Stage implements kserve.Source.
func (s *stages) Stage(name string) (kserve.Stage, error) {
	ref, err := s.find(name)
	return kserve.Stage{Name: name, Inputs: ref.Inputs, Outputs: ref.Outputs, Runtime: ref.Runtime}, err
}

// Load implements kserve.Source.
func (s *stages) Load(ctx context.Context, name string) (infer.Engine, error) {
	ref, err := s.find(name)
	if err != nil {
		return nil, err
	}
	return s.app.LoadStage(ctx, ref)
}

func (h *handler) serverMetadata(request) (any, error) {
	return kserve.ServerMetadata{Name: "vigild", Version: core.Version, Extensions: kserve.Extensions}, nil
}

func (h *handler) modelMetadata(r request) (any, error) {
	return h.models.Metadata(r.PathValue("name"))
}

func (h *handler) modelReady(r request) (any, error) {
	_, err := h.models.Metadata(r.PathValue("name"))
	return Ready{Ready: true}, err
}

// infer runs one model for a client.
func (h *handler) infer(w http.ResponseWriter, r request) {
	body, jsonLength, err := h.inferBody(r)
	if err != nil {
		h.answer(w, http.StatusOK, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if jsonLength >= 0 {
		w.Header().Set("Content-Type", typeRaw)
		w.Header().Set(kserve.HeaderLength, strconv.Itoa(jsonLength))
	}
	h.deadline(http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)))
	if _, err := w.Write(body); err != nil {
		h.log.Debug("client went away", "err", err)
	}
}

func (h *handler) inferBody(r request) (body []byte, jsonLength int, err error) {
	headerLength := -1
	text, ok, err := header(r.Request, kserve.HeaderLength)
	if err != nil {
		return nil, 0, err
	}
	if ok {
		if headerLength, err = strconv.Atoi(text); err != nil || headerLength < 0 {
			return nil, 0, fmt.Errorf("%w: %s: %q is no length", kserve.ErrRequest, kserve.HeaderLength, text)
		}
	}
	data, done, err := h.readRaw(r, nil)
	if err != nil {
		return nil, 0, err
	}
	defer done()
	return h.models.Infer(r.Context(), r.PathValue("name"), data, headerLength)
}
