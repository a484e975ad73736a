package store

import (
	"errors"
	"fmt"
)

// Sentinels that callers match with errors.Is; the methods that return them
// say so.
var (
	// ErrNotFound: there is no such subject, setting or file.
	ErrNotFound = errors.New("not found")
	// ErrExists: a subject or command with this id is there already.
	ErrExists = errors.New("already exists")
	// ErrInvalid: an argument is outside its documented range.
	ErrInvalid = errors.New("invalid argument")
	// ErrModel: a template or probe is of another model or length than asked for.
	ErrModel = errors.New("template does not fit the model")
	// ErrFull: the disk is full. Nothing of the transaction was kept, nothing
	// that was acknowledged before is lost, and the store goes on working.
	ErrFull = errors.New("disk is full")
	// ErrLimit: a bounded collection (commands, settings) refuses another entry.
	ErrLimit = errors.New("limit reached")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrSchema: the file was written by a newer version.
	ErrSchema = errors.New("store has a newer schema")
	// ErrKeyring: the file belongs to another device or another key ring.
	ErrKeyring = errors.New("store was made with other keys")
	// ErrCorrupt: the file, or a record in it, is damaged or was altered.
	ErrCorrupt = errors.New("store is damaged")
	// ErrFailed: the disk failed in a way that leaves open whether the last
	// transaction was kept. The store refuses everything until opened again.
	ErrFailed = errors.New("store has failed")
	// ErrClosed: the store or transaction was closed before.
	ErrClosed = errors.New("already closed")
	// ErrReadOnly: a change was tried inside View.
	ErrReadOnly = errors.New("transaction is read-only")
)

// RecordError names the record that is damaged. It matches ErrCorrupt and its
// cause, and never holds plaintext.
type RecordError struct {
	Bucket string
	Key    string // printable form: hex id, decimal number or setting name
	Err    error
}

// Error implements error.
func (e *RecordError) Error() string {
	return fmt.Sprintf("cannot read record %s/%s: %v; run vigild check, and restore the store from a backup", e.Bucket, e.Key, e.Err)
}

// Unwrap lets callers match ErrCorrupt and the cause.
func (e *RecordError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// Causes of a RecordError beside those of package secure.
var (
	errPages   = errors.New("its pages are damaged")
	errMissing = errors.New("it is missing")
	errFormat  = errors.New("its plaintext has an unknown format")
	errChain   = errors.New("its chain hash does not follow from the entry before it")
)
