package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"vigil/secure"
	"vigil/secure/mem"
)

// Bounds of a subject.
const (
	maxNameBytes        = 256
	maxSubjectTemplates = 64
	maxPage             = 1024 // most records that one call returns
)

// Subject is one enrolled person.
type Subject struct {
	ID        string    // 32 lowercase hex digits, random; see NewSubjectID
	Name      string    // at most 256 bytes of UTF-8
	Created   time.Time // kept in UTC
	Samples   int       // pictures or prints the templates were made from
	Templates int       // templates stored; set by PutSubject
}

// NewSubjectID returns a random id of 128 bits. It says nothing about the
// person, which is why it may stand in clear in the file and in the log.
func NewSubjectID() string {
	id := make([]byte, idBytes)
	rand.Read(id)
	return hex.EncodeToString(id)
}

// subjectKey parses an id.
func subjectKey(id string) ([]byte, error) {
	key, err := hex.DecodeString(id)
	if err != nil || len(key) != idBytes || hex.EncodeToString(key) != id {
		return nil, fmt.Errorf("cannot use subject id %q: it must be %d lowercase hex digits: %w", id, 2*idBytes, ErrInvalid)
	}
	return key, nil
}

// subjectRecord is the plaintext of a subject, as JSON.
type subjectRecord struct {
	Name      string    `json:"name"`
	Created   time.Time `json:"created"`
	Samples   int       `json:"samples"`
	Templates int       `json:"templates"`
}

func decodeSubject(plain []byte) (subjectRecord, bool) {
	var rec subjectRecord
	err := json.Unmarshal(plain, &rec)
	return rec, err == nil && rec.Samples >= 0 && rec.Templates > 0 && rec.Templates <= maxSubjectTemplates
}

// templateKey is the key of a subject's i-th template.
func templateKey(subject []byte, i int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(nil), subject...), uint16(i))
}

// PutSubject stores a new subject and its templates, 1 to 64, under a new DEK.
// Neither sub nor templates are kept or changed. Errors: ErrExists, ErrInvalid,
// ErrModel when a template is longer or shorter than those of its model that
// are there already.
func (tx *Tx) PutSubject(sub Subject, templates []Template) error {
	if err := tx.writable(); err != nil {
		return err
	}
	key, err := checkSubject(sub, templates)
	if err != nil {
		return err
	}
	if tx.get(place{bucketSubjects, key}) != nil {
		return fmt.Errorf("cannot store subject %s: %w", sub.ID, ErrExists)
	}
	for _, t := range templates {
		if err := tx.galleries.accepts(t.ModelID, len(t.Values)); err != nil {
			return err
		}
	}
	return tx.spoil(tx.putSubject(key, sub, templates))
}

func checkSubject(sub Subject, templates []Template) (key []byte, err error) {
	if key, err = subjectKey(sub.ID); err != nil {
		return nil, err
	}
	switch {
	case len(sub.Name) > maxNameBytes || !utf8.ValidString(sub.Name):
		return nil, fmt.Errorf("cannot store subject %s: its name must be at most %d bytes of UTF-8: %w", sub.ID, maxNameBytes, ErrInvalid)
	case sub.Samples < 0:
		return nil, fmt.Errorf("cannot store subject %s: %d samples: %w", sub.ID, sub.Samples, ErrInvalid)
	case len(templates) == 0 || len(templates) > maxSubjectTemplates:
		return nil, fmt.Errorf("cannot store subject %s: it has %d templates, it must have 1 to %d: %w", sub.ID, len(templates), maxSubjectTemplates, ErrInvalid)
	}
	dims := make(map[string]int)
	for _, t := range templates {
		if err := t.check(); err != nil {
			return nil, err
		}
		if dim, seen := dims[t.ModelID]; seen && dim != len(t.Values) {
			return nil, modelError(t.ModelID, dim, t.ModelID, len(t.Values))
		}
		dims[t.ModelID] = len(t.Values)
	}
	return key, nil
}

func (tx *Tx) putSubject(key []byte, sub Subject, templates []Template) error {
	keyPlace := place{bucketSubjectKeys, key}
	dek, wrapped, err := tx.vault.keyring.NewDEK(secure.Templates, tx.vault.aad(keyPlace))
	if err != nil {
		return fmt.Errorf("cannot make a key for subject %s: %w", sub.ID, err)
	}
	defer dek.Close()
	if err := tx.put(keyPlace, wrapped); err != nil {
		return err
	}
	if err := tx.putRecord(dek, key, sub, len(templates)); err != nil {
		return err
	}
	tx.hdr.Subjects++
	return tx.putTemplates(dek, key, sub.ID, 0, templates)
}

// Count returns how many subjects and templates are stored, with what this
// transaction changed. Errors: ErrCorrupt.
func (tx *Tx) Count() (subjects, templates int, err error) {
	if err := tx.usable(); err != nil {
		return 0, 0, err
	}
	h := tx.hdr
	if !tx.btx.Writable() {
		h, err = tx.header()
	}
	return int(h.Subjects), int(h.Templates), err
}

// AddTemplates adds templates to a subject who is there, made from samples more
// samples. Templates are not kept or changed. Errors: ErrNotFound, ErrInvalid
// (also when there would be more than 64), ErrModel as for PutSubject, ErrCorrupt.
func (tx *Tx) AddTemplates(id string, samples int, templates []Template) error {
	if err := tx.writable(); err != nil {
		return err
	}
	key, err := checkSubject(Subject{ID: id, Samples: samples}, templates)
	if err != nil {
		return err
	}
	sub, err := tx.Subject(id)
	if err != nil {
		return err
	}
	if sub.Templates+len(templates) > maxSubjectTemplates {
		return fmt.Errorf("cannot add %d templates to subject %s: it has %d, at most %d fit: %w", len(templates), id, sub.Templates, maxSubjectTemplates, ErrInvalid)
	}
	for _, t := range templates {
		if err := tx.galleries.accepts(t.ModelID, len(t.Values)); err != nil {
			return err
		}
	}
	sub.Samples += samples
	return tx.spoil(tx.addTemplates(key, sub, templates))
}

func (tx *Tx) addTemplates(key []byte, sub Subject, templates []Template) error {
	dek, err := tx.subjectDEK(key)
	if err != nil {
		return err
	}
	defer dek.Close()
	if err := tx.putRecord(dek, key, sub, sub.Templates+len(templates)); err != nil {
		return err
	}
	return tx.putTemplates(dek, key, sub.ID, sub.Templates, templates)
}

// putRecord writes a subject's record.
func (tx *Tx) putRecord(dek *secure.Key, key []byte, sub Subject, templates int) error {
	plain, err := json.Marshal(subjectRecord{sub.Name, sub.Created.UTC(), sub.Samples, templates})
	if err != nil {
		return fmt.Errorf("cannot encode subject %s: %w", sub.ID, ErrInvalid)
	}
	defer mem.Zero(plain)
	return tx.sealUnder(dek, place{bucketSubjects, key}, plain)
}

// putTemplates writes templates from an index on, and stages them in their galleries.
func (tx *Tx) putTemplates(dek *secure.Key, key []byte, id string, from int, templates []Template) error {
	for i, t := range templates {
		if err := tx.putTemplate(dek, place{bucketTemplates, templateKey(key, from+i)}, t); err != nil {
			return err
		}
		if err := tx.galleries.add(id, t); err != nil {
			return err
		}
	}
	tx.hdr.Templates += uint64(len(templates))
	return nil
}

// sealUnder writes a record under its subject's key.
func (tx *Tx) sealUnder(dek *secure.Key, p place, plain []byte) error {
	sealed, err := dek.Seal(plain, tx.vault.aad(p))
	if err != nil {
		return err
	}
	return tx.put(p, sealed)
}

func (tx *Tx) putTemplate(dek *secure.Key, p place, t Template) error {
	plain := t.encode(make([]byte, 0, templateMaxBytes))
	defer mem.Zero(plain)
	return tx.sealUnder(dek, p, plain)
}

// DeleteSubject deletes a subject, its templates and its DEK; with the DEK gone
// nothing of it can be decrypted, and the pages that held the DEK are
// overwritten after the commit. Errors: ErrNotFound, ErrInvalid.
func (tx *Tx) DeleteSubject(id string) error {
	if err := tx.writable(); err != nil {
		return err
	}
	key, err := subjectKey(id)
	if err != nil {
		return err
	}
	if tx.get(place{bucketSubjects, key}) == nil && tx.get(place{bucketSubjectKeys, key}) == nil {
		return fmt.Errorf("cannot delete subject %s: %w", id, ErrNotFound)
	}
	return tx.spoil(tx.deleteSubject(id, key))
}

func (tx *Tx) deleteSubject(id string, key []byte) error {
	places := []place{{bucketSubjectKeys, key}, {bucketSubjects, key}}
	c := tx.bucket(bucketTemplates).Cursor()
	for k := range prefixed(c, key) {
		places = append(places, place{bucketTemplates, append([]byte(nil), k...)})
	}
	templates := len(places) - 2
	for p := range tx.cropsOf(key) {
		places = append(places, p)
	}
	for _, p := range places {
		if err := tx.remove(p); err != nil {
			return err
		}
	}
	if err := tx.put(place{bucketMeta, []byte(metaErase)}, []byte{1}); err != nil {
		return err
	}
	tx.erase = true
	tx.galleries.remove(id)
	tx.hdr.Subjects--
	tx.hdr.Templates -= uint64(templates)
	return nil
}

// Subject returns a subject. Errors: ErrNotFound, ErrInvalid, ErrCorrupt.
func (tx *Tx) Subject(id string) (Subject, error) {
	if err := tx.usable(); err != nil {
		return Subject{}, err
	}
	key, err := subjectKey(id)
	if err != nil {
		return Subject{}, err
	}
	if tx.get(place{bucketSubjects, key}) == nil {
		return Subject{}, fmt.Errorf("cannot find subject %s: %w", id, ErrNotFound)
	}
	dek, err := tx.subjectDEK(key)
	if err != nil {
		return Subject{}, err
	}
	defer dek.Close()
	return tx.readSubject(dek, key)
}

// Subjects returns up to limit (at most 1024) subjects with ids after the given
// one, in order of id; "" begins at the first. Errors: ErrCorrupt.
func (tx *Tx) Subjects(after string, limit int) ([]Subject, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	from, err := hex.DecodeString(after)
	if err != nil {
		return nil, fmt.Errorf("cannot list subjects after %q: it must be an id: %w", after, ErrInvalid)
	}
	var out []Subject
	c := tx.bucket(bucketSubjects).Cursor()
	k, _ := c.Seek(from)
	if after != "" && string(k) == string(from) {
		k, _ = c.Next()
	}
	for ; k != nil && len(out) < min(limit, maxPage); k, _ = c.Next() {
		sub, err := tx.Subject(hex.EncodeToString(k))
		if err != nil {
			return nil, err
		}
		out = append(out, sub)
	}
	return out, nil
}

// subjectDEK opens the key of a subject; the caller closes it.
func (r *reader) subjectDEK(key []byte) (*secure.Key, error) {
	p := place{bucketSubjectKeys, key}
	return r.vault.openDEK(secure.Templates, p, r.get(p))
}

// readSubject opens the record of a subject.
func (r *reader) readSubject(dek *secure.Key, key []byte) (Subject, error) {
	p := place{bucketSubjects, key}
	envelope := r.get(p)
	if envelope == nil {
		return Subject{}, p.damaged(errMissing)
	}
	plain, err := dek.Open(envelope, r.vault.aad(p))
	if err != nil {
		return Subject{}, p.damaged(err)
	}
	defer mem.Zero(plain)
	rec, ok := decodeSubject(plain)
	if !ok {
		return Subject{}, p.damaged(errFormat)
	}
	return Subject{hex.EncodeToString(key), rec.Name, rec.Created, rec.Samples, rec.Templates}, nil
}

// readTemplate opens a template into scratch, which must hold templateMaxBytes
// bytes and should be locked memory; the result's values lie there.
func (r *reader) readTemplate(dek *secure.Key, p place, envelope, scratch []byte) (rawTemplate, error) {
	n, err := dek.OpenInto(scratch, envelope, r.vault.aad(p))
	if err != nil {
		return rawTemplate{}, p.damaged(err)
	}
	t, ok := decodeTemplate(scratch[:n])
	if !ok {
		return rawTemplate{}, p.damaged(errFormat)
	}
	return t, nil
}

// prefixed yields the records whose keys begin with prefix, in order.
func prefixed(c *bbolt.Cursor, prefix []byte) func(yield func(k, v []byte) bool) {
	return func(yield func(k, v []byte) bool) {
		for k, v := c.Seek(prefix); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == string(prefix); k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}
