// Package store keeps what a device must not lose and must not leak: subjects,
// their templates, the audit log, the outbox of events that wait for the
// broker, the ledger of executed commands, and small settings. It is one bbolt
// file, and in it everything but random ids, class names, setting names and
// expiry times is encrypted.
//
//	bucket          key                      value
//	meta            schema, id, key, canary  version of the layout, random store id, wrapped store key, second wrapped key
//	                header                   sealed totals and audit head, rewritten by every transaction
//	                erase                    present while freed pages still have to be overwritten
//	subjects        subject id, 16 bytes     record (name included), under the subject's DEK
//	subject_keys    subject id               the subject's DEK, wrapped under the templates KEK
//	templates       subject id, index        one template, under the subject's DEK
//	crops           subject id, index        picture of the enrolment, under the subject's DEK; only where one was kept
//	audit           sequence number          chain hash, event under the segment's DEK
//	audit_keys      segment number           DEK of 1024 events, wrapped under the audit KEK
//	outbox          record id                payload or gap marker, under the segment's DEK
//	outbox_keys     segment number           DEK of 1024 records, wrapped under the outbox KEK
//	outbox_index    class, record id         drop order
//	outbox_gaps     class, reason            id of the open gap marker
//	commands        SHA-256 of command id    recorded result, under the store key
//	command_expiry  expiry, command key      prune order
//	settings        name                     value, under the store key
//
// Numbers in keys are big-endian. Every envelope's AAD holds the store's id, the
// bucket, the key and the schema, so a ciphertext opens only where it was put.
//
// Promises. When Update returns nil, everything in it is on the disk: bbolt
// writes new pages, syncs, then switches its root page and syncs again. When it
// returns an error nothing of it is visible, on disk or in a Gallery; the one
// exception is ErrFailed, which says that the disk left this open, and after
// which the store serves nothing until it is opened again. Deleting a subject
// deletes its wrapped DEK and then overwrites the pages that held it. (A flash
// translation layer below the file system may keep older copies of a block;
// they are still wrapped under the templates KEK.)
//
// What is found, and what is not. An edited, moved, swapped, dropped or cut
// record is found by Check, because every record authenticates its place and
// the sealed header holds the totals, the audit head and a digest of the
// settings. Putting back a whole older image of the file is not found here.
//
// Blocking. One Update runs at a time; others wait for it, or for their
// context. A View never waits for an Update, and an Update waits for open Views
// only when the file outgrows its mapping of 1 GiB. Even so, keep Views short
// (pages they see cannot be used again), and never call Update inside View or
// View inside Update. Reads and writes are disk speed, a
// transaction costs two syncs; UpdateShared lets those that wait for one pay for
// the next together (at most 64). Gallery calls touch memory only.
//
// Bounds. The outbox is bounded by bytes, count and age and drops by class,
// leaving counted gap markers; the command ledger and the settings are bounded
// and refuse; sizes of single records are bounded. The audit log grows with the
// disk and is not pruned here.
//
// Ownership. A Store owns its file, its lock file (path + ".lock"), its store
// key and its galleries, and Close releases them all. The Keyring stays the
// caller's and must outlive the Store. The package starts no goroutines.
//
// It does not decide (thresholds and lockout policy are the daemon's), talk to
// the network, or know what a template means.
package store
