package store

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// schemaVersion is the layout this package writes. It is part of every AAD.
const schemaVersion uint16 = 1

// Names of the buckets; the package comment says what each holds.
const (
	bucketMeta          = "meta"
	bucketSubjects      = "subjects"
	bucketSubjectKeys   = "subject_keys"
	bucketTemplates     = "templates"
	bucketCrops         = "crops" // made with the first of them
	bucketAudit         = "audit"
	bucketAuditKeys     = "audit_keys"
	bucketOutbox        = "outbox"
	bucketOutboxKeys    = "outbox_keys"
	bucketOutboxIndex   = "outbox_index"
	bucketOutboxGaps    = "outbox_gaps"
	bucketCommands      = "commands"
	bucketCommandExpiry = "command_expiry"
	bucketSettings      = "settings"
)

// allBuckets returns every bucket that a store always has.
func allBuckets() []string {
	return []string{
		bucketMeta, bucketSubjects, bucketSubjectKeys, bucketTemplates, bucketAudit, bucketAuditKeys, bucketOutbox,
		bucketOutboxKeys, bucketOutboxIndex, bucketOutboxGaps, bucketCommands, bucketCommandExpiry, bucketSettings,
	}
}

// Keys of the meta bucket.
const (
	metaSchema = "schema"
	metaID     = "id"
	metaKey    = "key"
	metaCanary = "canary"
	metaHeader = "header"
	metaErase  = "erase"
)

// numberKey is the key of a numbered record.
func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// parseNumber is the reverse of numberKey; ok is false for any other length.
func parseNumber(key []byte) (n uint64, ok bool) {
	if len(key) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key), true
}

// printableKey renders a key for errors and reports: decimal for numbered
// records, text for the meta bucket, settings and classes, hex for the rest.
func printableKey(bucket string, key []byte) string {
	if len(key) == 0 {
		return ""
	}
	switch bucket {
	case bucketMeta, bucketSettings:
		return strconv.QuoteToASCII(string(key))
	case bucketAudit, bucketAuditKeys, bucketOutbox, bucketOutboxKeys:
		if n, ok := parseNumber(key); ok {
			return strconv.FormatUint(n, 10)
		}
	case bucketOutboxIndex, bucketOutboxGaps:
		return strconv.QuoteToASCII(string(key))
	}
	return hex.EncodeToString(key)
}
