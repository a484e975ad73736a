package store

import (
	"crypto/sha256"
	"encoding/binary"
)

// header is what the store knows about itself. It is sealed under the store key
// and rewritten in every transaction that changes something, so that records
// cannot be dropped, nor an older part put back, without it showing.
type header struct {
	Generation    uint64 // transactions so far
	Subjects      uint64
	Templates     uint64
	AuditSeq      uint64 // sequence number of the last event, 0 for none
	AuditHash     [sha256.Size]byte
	OutboxLast    uint64 // id of the last record, 0 for none
	OutboxRecords uint64 // gap markers not counted
	OutboxBytes   uint64 // at rest, gap markers included
	OutboxGaps    uint64 // gap markers that wait
	OutboxDropped uint64 // records dropped since the store was made
	Commands      uint64
	SettingsSum   [sha256.Size]byte // see settingsSum
}

const headerVersion = 1

// headerBytes is the encoded length: the version, ten numbers, two digests.
const headerBytes = 1 + 10*8 + 2*sha256.Size

// numbers lists the header's counters in the order they are encoded.
func (h *header) numbers() []*uint64 {
	return []*uint64{
		&h.Generation, &h.Subjects, &h.Templates, &h.AuditSeq, &h.OutboxLast,
		&h.OutboxRecords, &h.OutboxBytes, &h.OutboxGaps, &h.OutboxDropped, &h.Commands,
	}
}

func (h *header) encode() []byte {
	out := make([]byte, 0, headerBytes)
	out = append(out, headerVersion)
	for _, n := range h.numbers() {
		out = binary.BigEndian.AppendUint64(out, *n)
	}
	out = append(out, h.AuditHash[:]...)
	return append(out, h.SettingsSum[:]...)
}

// decodeHeader is the reverse of encode; ok is false for anything else.
func decodeHeader(raw []byte) (h header, ok bool) {
	if len(raw) != headerBytes || raw[0] != headerVersion {
		return header{}, false
	}
	raw = raw[1:]
	for _, n := range h.numbers() {
		*n, raw = binary.BigEndian.Uint64(raw), raw[8:]
	}
	copy(h.AuditHash[:], raw)
	copy(h.SettingsSum[:], raw[sha256.Size:])
	return h, true
}

// headerPlace is where the header lies.
func headerPlace() place { return place{bucketMeta, []byte(metaHeader)} }
