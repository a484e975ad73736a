package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"vigil/secure/mem"
)

// gallerySet is the galleries of a store by model id. They are made when first
// asked for and stay until the store is closed. Its zero value is empty.
type gallerySet struct {
	mu      sync.Mutex
	byModel map[string]*Gallery
}

// Gallery returns the gallery of a model, the same one each time. It is empty
// when no template of that model is stored.
func (s *Store) Gallery(modelID string) *Gallery { return s.galleries.get(modelID) }

func (s *gallerySet) get(modelID string) *Gallery {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.byModel[modelID]
	if g == nil {
		if s.byModel == nil {
			s.byModel = make(map[string]*Gallery)
		}
		g = newGallery(modelID)
		s.byModel[modelID] = g
	}
	return g
}

// all returns the galleries there are, in no order.
func (s *gallerySet) all() []*Gallery {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Gallery, 0, len(s.byModel))
	for _, g := range s.byModel {
		out = append(out, g)
	}
	return out
}

func (s *gallerySet) close() error {
	var errs []error
	for _, g := range s.all() {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
}

// rebuild decrypts every template of the store into the empty galleries and
// compares the totals with the header's.
func (s *gallerySet) rebuild(r *reader, h header) error {
	scratch, err := mem.New(templateMaxBytes)
	if err != nil {
		return fmt.Errorf("cannot decrypt templates: %w", err)
	}
	defer scratch.Close()
	plan := galleryPlan{set: s}
	var subjects, templates uint64
	c := r.bucket(bucketSubjects).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n, err := plan.load(r, k, scratch.Bytes())
		if err != nil {
			plan.discard()
			return err
		}
		subjects++
		templates += uint64(n)
		plan.apply()
	}
	if subjects != h.Subjects || templates != h.Templates {
		return headerPlace().damaged(fmt.Errorf("it counts %d subjects with %d templates, but %d with %d are there", h.Subjects, h.Templates, subjects, templates))
	}
	return nil
}

// load plans to add the stored templates of one subject.
func (p *galleryPlan) load(r *reader, key, scratch []byte) (templates int, err error) {
	dek, err := r.subjectDEK(key)
	if err != nil {
		return 0, err
	}
	defer dek.Close()
	sub, err := r.readSubject(dek, key)
	if err != nil {
		return 0, err
	}
	id := hex.EncodeToString(key)
	for i := range sub.Templates {
		at := place{bucketTemplates, templateKey(key, i)}
		envelope := r.get(at)
		if envelope == nil {
			return 0, at.damaged(errMissing)
		}
		t, err := r.readTemplate(dek, at, envelope, scratch)
		if err != nil {
			return 0, err
		}
		if err := p.addRaw(id, t); err != nil {
			return 0, err
		}
	}
	return sub.Templates, nil
}
