package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"vigil/store/internal/boltpage"
)

// errSettings says that the settings are not those the header was sealed with.
var errSettings = errors.New("the settings are not those that the header was sealed with")

// verifyPages checks the structure of the file before bbolt maps it, because
// bbolt trusts what it maps. repair is true when one of the two root pages is
// damaged: a power cut while it was written leaves it so, and the other one is
// the state before. The caller holds the lock.
func (s *Store) verifyPages() (repair bool, err error) {
	info, problems, err := checkPages(s.path)
	if err != nil {
		return false, err
	}
	if len(problems) > 0 {
		return false, fmt.Errorf("cannot open store %s: %s (%d problems); run vigild check, and restore it from a backup: %w", s.path, problems[0], len(problems), ErrCorrupt)
	}
	return info.DamagedRoot, nil
}

// checkPages runs the page checker over the file and collects what it finds.
func checkPages(path string) (info boltpage.Info, problems []boltpage.Problem, err error) {
	f, err := os.Open(path)
	if err != nil {
		return info, nil, fmt.Errorf("cannot check store: %w", err)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return info, nil, fmt.Errorf("cannot check store: %w", err)
	}
	info, err = boltpage.Find(f, stat.Size(), boltpage.Newest).Check(f, stat.Size(), func(p boltpage.Problem) {
		if len(problems) < maxProblems {
			problems = append(problems, p)
		}
	})
	if err != nil {
		return info, nil, fmt.Errorf("cannot check store %s: %w", path, err)
	}
	return info, problems, nil
}

// checkEnds is the part of Check that costs next to nothing and so runs at every
// start: the audit log ends where the header says, and the settings are those it
// was sealed with.
func (r *reader) checkEnds(h header) error {
	last, v := r.bucket(bucketAudit).Cursor().Last()
	switch {
	case h.AuditSeq == 0 && last == nil:
	case h.AuditSeq == 0 || !bytes.Equal(last, numberKey(h.AuditSeq)):
		return auditLog.record(h.AuditSeq).damaged(fmt.Errorf("the audit log does not end with the last event, number %d", h.AuditSeq))
	case !bytes.HasPrefix(v, h.AuditHash[:]):
		return auditLog.record(h.AuditSeq).damaged(errChain)
	}
	if settingsSum(r.bucket(bucketSettings)) != h.SettingsSum {
		return place{bucketSettings, nil}.damaged(errSettings)
	}
	return nil
}
