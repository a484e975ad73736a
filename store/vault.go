package store

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"go.etcd.io/bbolt"

	"vigil/secure"
)

// idBytes is the length of a store's random id.
const idBytes = 16

// vault is what it takes to open the records of one store: its id, the key ring
// and the store key. The store key (a DEK under the audit KEK) seals the header,
// settings and command results.
type vault struct {
	id      string // hex
	schema  uint16
	keyring *secure.Keyring
	key     *secure.Key
}

// place is where a record lies.
type place struct {
	bucket string
	key    []byte
}

// aad binds an envelope to its place in this store.
func (v *vault) aad(p place) secure.AAD {
	return secure.AAD{Bucket: v.id + "/" + p.bucket, Key: string(p.key), Schema: v.schema}
}

// damaged names the record at p in an error.
func (p place) damaged(err error) error {
	return &RecordError{Bucket: p.bucket, Key: printableKey(p.bucket, p.key), Err: err}
}

// seal encrypts a record under the store key.
func (v *vault) seal(p place, plaintext []byte) ([]byte, error) {
	return v.key.Seal(plaintext, v.aad(p))
}

// open decrypts a record that seal made.
func (v *vault) open(p place, envelope []byte) ([]byte, error) {
	if envelope == nil {
		return nil, p.damaged(errMissing)
	}
	plain, err := v.key.Open(envelope, v.aad(p))
	if err != nil {
		return nil, p.damaged(err)
	}
	return plain, nil
}

// openDEK unwraps the key that is stored at p.
func (v *vault) openDEK(purpose secure.Purpose, p place, wrapped []byte) (*secure.Key, error) {
	if wrapped == nil {
		return nil, p.damaged(errMissing)
	}
	key, err := v.keyring.OpenDEK(purpose, wrapped, v.aad(p))
	if err != nil {
		return nil, p.damaged(err)
	}
	return key, nil
}

// close zeroes the store key.
func (v *vault) close() error {
	if v == nil {
		return nil
	}
	return v.key.Close()
}

// openVault reads the meta bucket. Errors: ErrSchema for a newer layout,
// ErrKeyring for another device's store, ErrCorrupt for a damaged one.
func openVault(btx *bbolt.Tx, keyring *secure.Keyring) (*vault, error) {
	for _, name := range allBuckets() {
		if btx.Bucket([]byte(name)) == nil {
			return nil, fmt.Errorf("cannot use store: bucket %s is missing; restore it from a backup: %w", name, ErrCorrupt)
		}
	}
	meta := btx.Bucket([]byte(bucketMeta))
	schema, id := meta.Get([]byte(metaSchema)), meta.Get([]byte(metaID))
	if len(schema) != 2 || len(id) != idBytes {
		return nil, place{bucketMeta, []byte(metaSchema)}.damaged(errFormat)
	}
	v := &vault{id: hex.EncodeToString(id), schema: binary.BigEndian.Uint16(schema), keyring: keyring}
	if v.schema > schemaVersion {
		return nil, fmt.Errorf("cannot use store of schema %d, this version knows up to %d; install the version that wrote it: %w", v.schema, schemaVersion, ErrSchema)
	}
	if v.schema != schemaVersion {
		return nil, place{bucketMeta, []byte(metaSchema)}.damaged(errFormat)
	}
	return v, v.openStoreKey(meta)
}

// openStoreKey unwraps the store key. Two wrapped copies tell a damaged record
// from a foreign key ring: with the wrong keys neither opens.
func (v *vault) openStoreKey(meta *bbolt.Bucket) error {
	keyPlace, canaryPlace := place{bucketMeta, []byte(metaKey)}, place{bucketMeta, []byte(metaCanary)}
	key, keyErr := v.openDEK(secure.Audit, keyPlace, meta.Get(keyPlace.key))
	canary, canaryErr := v.openDEK(secure.Templates, canaryPlace, meta.Get(canaryPlace.key))
	canary.Close()
	switch {
	case keyErr == nil && canaryErr == nil:
		v.key = key
		return nil
	case keyErr != nil && canaryErr != nil:
		return fmt.Errorf("cannot use store: none of its keys opens with the key ring of device %q; it was made on another device or before this one was provisioned again: %w", v.keyring.Device(), ErrKeyring)
	case keyErr != nil:
		return keyErr
	}
	key.Close()
	return canaryErr
}
