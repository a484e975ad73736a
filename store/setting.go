package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"regexp"

	"go.etcd.io/bbolt"
)

// Bounds of the settings.
const (
	maxSettings     = 256
	maxSettingBytes = 16 << 10
)

// settingName is what names must match. They stand in clear in the file.
var settingName = regexp.MustCompile(`^[a-z][a-z0-9_./-]{0,63}$`)

// Get returns a setting. Errors: ErrNotFound, ErrInvalid, ErrCorrupt.
func (tx *Tx) Get(name string) ([]byte, error) {
	if err := tx.usable(); err != nil {
		return nil, err
	}
	p, err := settingPlace(name)
	if err != nil {
		return nil, err
	}
	sealed := tx.get(p)
	if sealed == nil {
		return nil, fmt.Errorf("cannot find setting %s: %w", name, ErrNotFound)
	}
	return tx.vault.open(p, sealed)
}

// Put stores a setting of at most 16 KiB, or deletes it when value is nil. The
// name stands in clear in the file and must not tell about a person. There are
// at most 256 settings. A value that is stored already changes nothing. Errors: ErrInvalid, ErrLimit.
func (tx *Tx) Put(name string, value []byte) error {
	if err := tx.writable(); err != nil {
		return err
	}
	p, err := settingPlace(name)
	if err != nil {
		return err
	}
	if len(value) > maxSettingBytes {
		return fmt.Errorf("cannot store setting %s of %d bytes, at most %d fit: %w", name, len(value), maxSettingBytes, ErrInvalid)
	}
	if tx.holds(p, value) {
		return nil
	}
	if err := tx.putSetting(p, value); err != nil {
		return err
	}
	tx.hdr.SettingsSum = settingsSum(tx.bucket(bucketSettings))
	return nil
}

// holds says whether a setting has this value already. One that is damaged has none.
func (tx *Tx) holds(p place, value []byte) bool {
	sealed := tx.get(p)
	if sealed == nil || value == nil {
		return sealed == nil && value == nil
	}
	now, err := tx.vault.open(p, sealed)
	return err == nil && bytes.Equal(now, value)
}

func (tx *Tx) putSetting(p place, value []byte) error {
	if value == nil {
		return tx.remove(p)
	}
	if tx.get(p) == nil && countKeys(tx.bucket(bucketSettings)) >= maxSettings {
		return fmt.Errorf("cannot store setting %s: there are %d already: %w", p.key, maxSettings, ErrLimit)
	}
	sealed, err := tx.vault.seal(p, value)
	if err != nil {
		return tx.spoil(err)
	}
	return tx.put(p, sealed)
}

func settingPlace(name string) (place, error) {
	if !settingName.MatchString(name) {
		return place{}, fmt.Errorf("cannot use setting name %q: it must match %s: %w", name, settingName, ErrInvalid)
	}
	return place{bucketSettings, []byte(name)}, nil
}

// settingsSum is a digest over all settings as stored. It is in the sealed
// header, so that one setting, such as a count of failures, cannot be set back
// to an older value that was authentic once.
func settingsSum(b *bbolt.Bucket) (sum [sha256.Size]byte) {
	h := sha256.New()
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		for _, part := range [][]byte{k, v} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			h.Write(part)
		}
	}
	h.Sum(sum[:0])
	return sum
}

// emptySettingsSum is settingsSum of an empty bucket.
func emptySettingsSum() [sha256.Size]byte { return sha256.Sum256(nil) }

// countKeys counts the records of a bucket that is known to be small.
func countKeys(b *bbolt.Bucket) (n int) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	return n
}
