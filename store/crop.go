package store

import (
	"fmt"

	"vigil/secure/mem"
)

// Bounds of the pictures that are kept of a subject's enrolment.
const (
	maxCropBytes    = 1 << 20
	maxSubjectCrops = 16
)

// AddCrops keeps pictures of a subject's enrolment, in whatever form, under the subject's DEK: they are gone with it. They
// are no part of the totals that Check counts, so one that is dropped from the file is missed by nobody; one that is
// changed or moved is found. At most 16 are kept, of at most 1 MiB each; more are left out. It returns how many were kept.
// Crops are not kept or changed by the call. Errors: ErrNotFound, ErrInvalid, ErrCorrupt.
func (tx *Tx) AddCrops(id string, crops [][]byte) (kept int, err error) {
	if err := tx.writable(); err != nil {
		return 0, err
	}
	key, err := subjectKey(id)
	if err != nil {
		return 0, err
	}
	if tx.get(place{bucketSubjects, key}) == nil {
		return 0, fmt.Errorf("cannot keep pictures of subject %s: %w", id, ErrNotFound)
	}
	for _, c := range crops {
		if len(c) == 0 || len(c) > maxCropBytes {
			return 0, fmt.Errorf("cannot keep a picture of %d bytes, 1 to %d fit: %w", len(c), maxCropBytes, ErrInvalid)
		}
	}
	kept, err = tx.addCrops(key, crops)
	return kept, tx.spoil(err)
}

func (tx *Tx) addCrops(key []byte, crops [][]byte) (kept int, err error) {
	if _, err := tx.btx.CreateBucketIfNotExists([]byte(bucketCrops)); err != nil {
		return 0, err
	}
	n := 0
	for range prefixed(tx.bucket(bucketCrops).Cursor(), key) {
		n++
	}
	dek, err := tx.subjectDEK(key)
	if err != nil {
		return 0, err
	}
	defer dek.Close()
	for _, c := range crops[:min(len(crops), max(maxSubjectCrops-n, 0))] {
		if err := tx.sealUnder(dek, place{bucketCrops, templateKey(key, n+kept)}, c); err != nil {
			return kept, err
		}
		kept++
	}
	return kept, nil
}

// Crops returns the pictures that are kept of a subject's enrolment; none is no error. The caller wipes them. Errors:
// ErrNotFound, ErrInvalid, ErrCorrupt.
func (tx *Tx) Crops(id string) (crops [][]byte, err error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	key, err := subjectKey(id)
	if err != nil {
		return nil, err
	}
	if tx.get(place{bucketSubjects, key}) == nil {
		return nil, fmt.Errorf("cannot find subject %s: %w", id, ErrNotFound)
	}
	defer func() {
		if err != nil {
			for _, c := range crops {
				mem.Zero(c)
			}
			crops = nil
		}
	}()
	for p, envelope := range tx.cropsOf(key) {
		plain, err := tx.openCrop(p, envelope)
		if err != nil {
			return crops, err
		}
		crops = append(crops, plain)
	}
	return crops, nil
}

// cropsOf yields the crops of a subject. The bucket is there once a crop was kept.
func (r *reader) cropsOf(key []byte) func(yield func(p place, envelope []byte) bool) {
	return func(yield func(p place, envelope []byte) bool) {
		b := r.bucket(bucketCrops)
		if b == nil {
			return
		}
		for k, v := range prefixed(b.Cursor(), key) {
			if !yield(place{bucketCrops, append([]byte(nil), k...)}, v) {
				return
			}
		}
	}
}

func (r *reader) openCrop(p place, envelope []byte) ([]byte, error) {
	dek, err := r.subjectDEK(p.key[:idBytes])
	if err != nil {
		return nil, err
	}
	defer dek.Close()
	plain, err := dek.Open(envelope, r.vault.aad(p))
	if err != nil {
		return nil, p.damaged(err)
	}
	return plain, nil
}

// crops checks keys, owners and envelopes of all crops.
func (c *contentCheck) crops() {
	if c.bucket(bucketCrops) == nil {
		return
	}
	c.each(bucketCrops, func(p place, envelope []byte) {
		if len(p.key) != idBytes+2 {
			c.report.record(p, errUnknown, remedyRestore)
			return
		}
		subject := p.key[:idBytes]
		if c.get(place{bucketSubjects, subject}) == nil {
			c.report.record(p, errOrphan, remedySubject)
			return
		}
		plain, err := c.openCrop(p, envelope)
		if err != nil {
			c.report.record(p, cause(err), remedySubject)
			return
		}
		mem.Zero(plain)
	})
}
