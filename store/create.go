package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"vigil/secure"
)

// boltTimeout bounds the wait for bbolt's own lock, which is free whenever ours
// is held, unless something that is not Vigil has the file open.
const boltTimeout = time.Second

// create makes a new, empty store at path, unless there is a file already. It
// builds it under another name and renames it, so a crash never leaves a half
// store at path. The caller holds the lock.
func create(path string, keyring *secure.Keyring) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	building := path + ".new"
	if err := os.Remove(building); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot clear the rest of an earlier start: %w", err)
	}
	if err := build(building, keyring); err != nil {
		os.Remove(building)
		return commitFailed(path, fmt.Errorf("cannot create store %s: %w", path, err))
	}
	if err := os.Rename(building, path); err != nil {
		return fmt.Errorf("cannot create store %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func build(path string, keyring *secure.Keyring) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: boltTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(btx *bbolt.Tx) error {
		for _, name := range allBuckets() {
			if _, err := btx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return putIdentity(btx.Bucket([]byte(bucketMeta)), keyring)
	})
	return errors.Join(err, db.Close())
}

// putIdentity writes what openVault reads, and the first header.
func putIdentity(meta *bbolt.Bucket, keyring *secure.Keyring) error {
	id := make([]byte, idBytes)
	rand.Read(id)
	v := &vault{id: hex.EncodeToString(id), schema: schemaVersion, keyring: keyring}
	key, wrapped, err := keyring.NewDEK(secure.Audit, v.aad(place{bucketMeta, []byte(metaKey)}))
	if err != nil {
		return err
	}
	defer key.Close()
	v.key = key
	canary, wrappedCanary, err := keyring.NewDEK(secure.Templates, v.aad(place{bucketMeta, []byte(metaCanary)}))
	if err != nil {
		return err
	}
	canary.Close()
	first := header{AuditHash: genesis(v.id), SettingsSum: emptySettingsSum()}
	sealed, err := v.seal(headerPlace(), first.encode())
	if err != nil {
		return err
	}
	return errors.Join(
		meta.Put([]byte(metaSchema), binary.BigEndian.AppendUint16(nil, schemaVersion)),
		meta.Put([]byte(metaID), id),
		meta.Put([]byte(metaKey), wrapped),
		meta.Put([]byte(metaCanary), wrappedCanary),
		meta.Put([]byte(metaHeader), sealed),
	)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
