package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"vigil/secure"
	"vigil/secure/mem"
	"vigil/store/internal/boltpage"
)

// Check reads everything in the store at path, which nobody may have open: its
// pages, every key and envelope, the audit chain up to its sealed head, and what
// has to agree with what. It changes nothing. What is wrong stands in the
// report; the error says that there could be none: ErrNotFound, ErrLocked,
// ErrSchema, ErrKeyring, or the file system's.
func Check(path string, keyring *secure.Keyring) (Report, error) {
	f, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return Report{}, fmt.Errorf("cannot check store: there is none at %s: %w", path, ErrNotFound)
		}
		return Report{}, fmt.Errorf("cannot check store: %w", err)
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_SH, defaultLockWait); err != nil {
		return Report{}, fmt.Errorf("cannot check store %s: a running vigild holds it (%v); ask it instead, or stop it: %w", path, err, ErrLocked)
	}
	report := Report{Path: path, Checked: time.Now().UTC()}
	if sound, err := report.findAndCheck(f); err != nil || !sound {
		return report, err
	}
	var db *bbolt.DB
	err = guarded(path, func() (err error) {
		if db, err = bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: boltTimeout}); err != nil {
			return fmt.Errorf("cannot check store %s: %w", path, err)
		}
		return db.View(func(btx *bbolt.Tx) error {
			for err := range btx.Check() {
				report.add(Problem{"", "", err.Error(), remedyRestore})
			}
			return report.contents(btx, keyring)
		})
	}, func(bool) {})
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	return report.settle(err)
}

// Check is the function Check on an open store. It looks at the state of one
// moment, while Updates go on, and takes as long as reading the file does; see
// the package comment for what waits.
func (s *Store) Check() (Report, error) {
	report := Report{Path: s.path, Checked: s.now().UTC()}
	f, err := os.Open(s.path)
	if err != nil {
		return report, fmt.Errorf("cannot check store: %w", err)
	}
	defer f.Close()
	<-s.writer // no commit may come between the View and its root page
	goOn := sync.OnceFunc(func() { s.writer <- struct{}{} })
	defer goOn()
	err = s.View(context.Background(), func(tx *Tx) error {
		stat, err := f.Stat()
		if err != nil {
			return fmt.Errorf("cannot check store: %w", err)
		}
		state := boltpage.Find(f, stat.Size(), uint64(tx.btx.ID()))
		goOn()
		if sound, err := report.pages(state, f, stat.Size()); err != nil || !sound {
			return err
		}
		return report.contents(tx.btx, s.vault.keyring)
	})
	return report.settle(err)
}

// settle moves a damaged record that ended the check early into the report.
func (r *Report) settle(err error) (Report, error) {
	var damaged *RecordError
	switch {
	case errors.As(err, &damaged):
		r.add(Problem{damaged.Bucket, damaged.Key, damaged.Err.Error(), remedyRestore})
	case errors.Is(err, ErrCorrupt):
		r.add(Problem{"", "", err.Error(), remedyRestore})
	default:
		return *r, err
	}
	return *r, nil
}

// findAndCheck checks the structure of a file that nobody writes to.
func (r *Report) findAndCheck(f *os.File) (sound bool, err error) {
	stat, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("cannot check store: %w", err)
	}
	return r.pages(boltpage.Find(f, stat.Size(), boltpage.Newest), f, stat.Size())
}

// pages checks the structure of a state; sound says that bbolt may follow it.
func (r *Report) pages(state boltpage.State, f *os.File, sizeBytes int64) (sound bool, err error) {
	r.FileBytes = sizeBytes
	info, err := state.Check(f, sizeBytes, func(p boltpage.Problem) {
		r.add(Problem{p.Bucket, "", fmt.Sprintf("page %d: %s", p.Page, p.Text), remedyRestore})
	})
	if err != nil {
		return false, fmt.Errorf("cannot check store %s: %w", r.Path, err)
	}
	sound = r.OK()
	if sound && info.DamagedRoot {
		r.add(Problem{"", "", "one of the two root pages is damaged; the last transaction may be missing", remedyRoot})
	}
	return sound, nil
}

// contents checks every record that a transaction sees.
func (r *Report) contents(btx *bbolt.Tx, keyring *secure.Keyring) error {
	v, err := openVault(btx, keyring)
	if err != nil {
		return err
	}
	defer v.close()
	r.Schema, r.StoreID = v.schema, v.id
	scratch, err := mem.New(templateMaxBytes)
	if err != nil {
		return err
	}
	defer scratch.Close()
	c := &contentCheck{reader: &reader{btx: btx, vault: v}, report: r, scratch: scratch.Bytes()}
	defer c.reader.close()
	if c.hdr, err = c.header(); err != nil {
		// Without totals every count would differ; the records are still read.
		r.record(headerPlace(), cause(err), remedyRestore)
		c.headless = true
	}
	r.totals(c.hdr)
	c.meta()
	c.subjects()
	c.crops()
	c.audit()
	c.outbox()
	c.commands()
	c.settings()
	return nil
}

// contentCheck goes through the buckets one after the other and reports what it
// finds; nothing stops it.
type contentCheck struct {
	*reader
	report   *Report
	hdr      header
	headless bool
	scratch  []byte
}

// cause takes the wrapping off a RecordError, whose place the report has anyway.
func cause(err error) error {
	var damaged *RecordError
	if errors.As(err, &damaged) {
		return damaged.Err
	}
	return err
}

// count compares a total with the header's.
func (c *contentCheck) count(bucket string, have, want uint64) {
	if have != want && !c.headless {
		err := fmt.Errorf("%d records are there, the sealed header counts %d", have, want)
		c.report.record(place{bucket, nil}, err, remedyRestore)
	}
}

// each calls f for every record of a bucket, and reports nested buckets.
func (c *contentCheck) each(bucket string, f func(p place, v []byte)) {
	cur := c.bucket(bucket).Cursor()
	for k, v := cur.First(); k != nil; k, v = cur.Next() {
		p := place{bucket, append([]byte(nil), k...)}
		if v == nil {
			c.report.record(p, errors.New("it is a bucket"), remedyRestore)
			continue
		}
		f(p, v)
	}
}

// meta reports entries that do not belong there.
func (c *contentCheck) meta() {
	known := map[string]bool{metaSchema: true, metaID: true, metaKey: true, metaCanary: true, metaHeader: true, metaErase: true}
	c.each(bucketMeta, func(p place, _ []byte) {
		if !known[string(p.key)] {
			c.report.record(p, errUnknown, remedyRestore)
		}
	})
}

// commands checks the ledger and its prune order.
func (c *contentCheck) commands() {
	expiries := c.keysOf(bucketCommandExpiry)
	c.each(bucketCommands, func(p place, v []byte) {
		c.report.Commands++
		rec, err := c.commandRecord(p, v)
		if err != nil {
			c.report.record(p, cause(err), remedyRestore)
			return
		}
		at := string(expiryKey(rec.Expires, p.key))
		if !expiries[at] {
			c.report.record(p, errors.New("its expiry is not noted"), remedyRestore)
		}
		delete(expiries, at)
	})
	for k := range expiries {
		c.report.record(place{bucketCommandExpiry, []byte(k)}, errOrphan, remedyRestore)
	}
	c.count(bucketCommands, c.report.Commands, c.hdr.Commands)
}

// settings opens each of them and compares their digest.
func (c *contentCheck) settings() {
	c.each(bucketSettings, func(p place, v []byte) {
		c.report.Settings++
		if _, err := c.vault.open(p, v); err != nil {
			c.report.record(p, cause(err), remedyRestore)
		}
	})
	if !c.headless && settingsSum(c.bucket(bucketSettings)) != c.hdr.SettingsSum {
		c.report.record(place{bucketSettings, nil}, errSettings, remedyRestore)
	}
}
