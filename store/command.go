package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// Bounds of a recorded command.
const (
	maxCommandID    = 256      // bytes
	maxResultBytes  = 64 << 10 // bytes
	maxExpiryYears  = 10       // an expiry beyond this is a mistake and would never be pruned
	commandMargin   = 24 * time.Hour
	commandKeyBytes = sha256.Size
)

// commandRecord is the plaintext of a recorded command, as JSON.
type commandRecord struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Result  []byte    `json:"result"`
}

func decodeCommand(plain []byte) (rec commandRecord, ok bool) {
	err := json.Unmarshal(plain, &rec)
	return rec, err == nil && rec.ID != ""
}

// commandKey hides the id and gives it one length.
func commandKey(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:]
}

// expiryKey orders commands by expiry, in whole seconds.
func expiryKey(expires time.Time, key []byte) []byte {
	return append(numberKey(uint64(max(expires.Unix(), 0))), key...)
}

// Command returns what RecordCommand recorded for a command; found is false
// when it was never executed, or long enough ago to have been pruned. Errors:
// ErrCorrupt.
func (tx *Tx) Command(id string) (result []byte, found bool, err error) {
	if err := tx.usable(); err != nil {
		return nil, false, err
	}
	p := place{bucketCommands, commandKey(id)}
	sealed := tx.get(p)
	if sealed == nil {
		return nil, false, nil
	}
	rec, err := tx.commandRecord(p, sealed)
	if err != nil {
		return nil, false, err
	}
	return rec.Result, true, nil
}

func (r *reader) commandRecord(p place, sealed []byte) (commandRecord, error) {
	plain, err := r.vault.open(p, sealed)
	if err != nil {
		return commandRecord{}, err
	}
	rec, ok := decodeCommand(plain)
	if !ok || !bytes.Equal(commandKey(rec.ID), p.key) {
		return commandRecord{}, p.damaged(errFormat)
	}
	return rec, nil
}

// RecordCommand records that a command was executed and what came of it (at
// most 64 KiB), in the transaction that has its effect: either both are kept or
// neither. It is kept until a day after expires at least, and until then room is
// never made for another: when the ledger is full of such commands, it fails
// with ErrLimit, and the effect must not be kept. Pruning happens only when room
// is needed, so a clock that runs ahead for a while forgets nothing early.
//
// Errors: ErrExists, ErrLimit, ErrInvalid.
func (tx *Tx) RecordCommand(id string, expires time.Time, result []byte) error {
	if err := tx.writable(); err != nil {
		return err
	}
	p := place{bucketCommands, commandKey(id)}
	now := tx.s.now()
	switch {
	case id == "" || len(id) > maxCommandID || len(result) > maxResultBytes || expires.After(now.AddDate(maxExpiryYears, 0, 0)):
		return fmt.Errorf("cannot record command: id has %d bytes (1 to %d), result %d (at most %d), expiry %s (at most %d years ahead): %w", len(id), maxCommandID, len(result), maxResultBytes, expires.UTC().Format(time.RFC3339), maxExpiryYears, ErrInvalid)
	case tx.get(p) != nil:
		return fmt.Errorf("cannot record command %x: %w", p.key[:8], ErrExists)
	}
	if err := tx.makeRoomForCommand(now); err != nil {
		return err
	}
	plain, err := json.Marshal(commandRecord{id, expires.UTC(), result})
	if err != nil {
		return fmt.Errorf("cannot encode command %x: %w", p.key[:8], ErrInvalid)
	}
	sealed, err := tx.vault.seal(p, plain)
	if err != nil {
		return tx.spoil(err)
	}
	if err := tx.put(p, sealed); err != nil {
		return err
	}
	tx.hdr.Commands++
	return tx.put(place{bucketCommandExpiry, expiryKey(expires, p.key)}, []byte{1})
}

// makeRoomForCommand prunes what has expired, oldest first, until one more
// command fits.
func (tx *Tx) makeRoomForCommand(now time.Time) error {
	c := tx.bucket(bucketCommandExpiry).Cursor()
	for tx.hdr.Commands >= tx.s.commandLimit {
		k, _ := c.First()
		if len(k) != 8+commandKeyBytes || int64(binary.BigEndian.Uint64(k)) > now.Add(-commandMargin).Unix() {
			return fmt.Errorf("cannot record command: %d commands that have not expired are recorded; wait, or send fewer: %w", tx.hdr.Commands, ErrLimit)
		}
		k = bytes.Clone(k)
		if err := tx.remove(place{bucketCommands, k[8:]}); err != nil {
			return err
		}
		if err := tx.remove(place{bucketCommandExpiry, k}); err != nil {
			return err
		}
		tx.hdr.Commands--
	}
	return nil
}
