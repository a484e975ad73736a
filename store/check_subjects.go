package store

import (
	"encoding/binary"
	"errors"
)

// subjects checks keys, records and templates of every subject, and that none
// of the three is there without the others.
func (c *contentCheck) subjects() {
	var found uint64
	c.each(bucketSubjects, func(p place, _ []byte) {
		found++
		if len(p.key) != idBytes {
			c.report.record(p, errUnknown, remedyRestore)
			return
		}
		c.subject(p)
	})
	c.report.Subjects = found
	c.count(bucketSubjects, found, c.hdr.Subjects)
	c.count(bucketTemplates, c.report.Templates, c.hdr.Templates)
	c.each(bucketSubjectKeys, func(p place, _ []byte) { c.orphan(p, p.key) })
	c.each(bucketTemplates, func(p place, _ []byte) {
		if len(p.key) != idBytes+2 {
			c.report.record(p, errUnknown, remedyRestore)
			return
		}
		c.orphan(p, p.key[:idBytes])
	})
}

// orphan reports a record whose subject is not there.
func (c *contentCheck) orphan(p place, subject []byte) {
	if c.get(place{bucketSubjects, subject}) == nil {
		c.report.record(p, errOrphan, remedySubject)
	}
}

// subject opens one subject and its templates.
func (c *contentCheck) subject(p place) {
	expected := -1
	dek, err := c.subjectDEK(p.key)
	if err != nil {
		c.report.record(place{bucketSubjectKeys, p.key}, cause(err), remedySubject)
	} else {
		defer dek.Close()
		sub, err := c.readSubject(dek, p.key)
		if err != nil {
			c.report.record(p, cause(err), remedySubject)
		} else {
			expected = sub.Templates
		}
	}
	n := 0
	for k, v := range prefixed(c.bucket(bucketTemplates).Cursor(), p.key) {
		at := place{bucketTemplates, append([]byte(nil), k...)}
		c.report.Templates++
		if len(k) != idBytes+2 || int(binary.BigEndian.Uint16(k[idBytes:])) != n {
			c.report.record(at, errors.New("a template before it is missing"), remedySubject)
		}
		n++
		if dek == nil {
			continue
		}
		if _, err := c.readTemplate(dek, at, v, c.scratch); err != nil {
			c.report.record(at, cause(err), remedySubject)
		}
	}
	if expected >= 0 && n != expected {
		c.report.record(p, errors.New("it has more or fewer templates than its record says"), remedySubject)
	}
}
