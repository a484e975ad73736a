package store

import (
	"encoding/binary"
	"time"
)

// OutboxRecord is something that waits for the broker: a payload, or a gap
// marker, which has Gap set and no payload.
type OutboxRecord struct {
	ID      uint64 // grows with every record; a receiver drops repeats by it
	Class   string
	Created time.Time
	Payload []byte
	Gap     *Gap
}

// Gap says that records were dropped before they could be delivered. While a
// marker waits, further drops of its class and reason extend it: the new marker
// has the same From, a higher Count and To, and a new id. Records that were on
// their way when dropped are counted too, although they may have arrived.
type Gap struct {
	Count  uint64 `json:"count"`
	From   uint64 `json:"from"` // id of the first dropped record
	To     uint64 `json:"to"`   // id of the last; those between may be of other classes, and kept
	Reason string `json:"reason"`
}

// Reasons of a gap.
const (
	GapFull = "full" // MaxRecords or MaxBytes was exceeded
	GapAge  = "age"  // MaxAge was exceeded
)

const (
	outboxVersion = 1
	kindPayload   = 0
	kindGap       = 1
	// outboxOverhead is the encoded length less class and body: version, kind,
	// creation time, length of the class.
	outboxOverhead = 1 + 1 + 8 + 1
)

// encode returns the plaintext of a record: version, kind, creation time as
// big-endian nanoseconds since 1970, length of the class, class, and then the
// payload, or count, from, to and reason of a gap.
func (r OutboxRecord) encode() []byte {
	kind := byte(kindPayload)
	if r.Gap != nil {
		kind = kindGap
	}
	out := make([]byte, 0, outboxOverhead+len(r.Class)+len(r.Payload)+40)
	out = append(out, outboxVersion, kind)
	out = binary.BigEndian.AppendUint64(out, uint64(r.Created.UnixNano()))
	out = append(append(out, byte(len(r.Class))), r.Class...)
	if r.Gap == nil {
		return append(out, r.Payload...)
	}
	for _, n := range []uint64{r.Gap.Count, r.Gap.From, r.Gap.To} {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return append(out, r.Gap.Reason...)
}

// decodeOutbox is the reverse of encode. The payload is part of raw.
func decodeOutbox(id uint64, raw []byte) (r OutboxRecord, ok bool) {
	if len(raw) < outboxOverhead || raw[0] != outboxVersion || raw[1] > kindGap {
		return r, false
	}
	kind, n := raw[1], int(raw[10])
	if len(raw) < outboxOverhead+n {
		return r, false
	}
	r = OutboxRecord{
		ID:      id,
		Created: time.Unix(0, int64(binary.BigEndian.Uint64(raw[2:]))).UTC(),
		Class:   string(raw[11 : 11+n]),
	}
	body := raw[11+n:]
	if !className.MatchString(r.Class) {
		return r, false
	}
	if kind == kindPayload {
		r.Payload = body
		return r, true
	}
	r.Gap, ok = decodeGap(body)
	return r, ok
}

func decodeGap(raw []byte) (*Gap, bool) {
	if len(raw) < 24 {
		return nil, false
	}
	g := &Gap{
		Count:  binary.BigEndian.Uint64(raw),
		From:   binary.BigEndian.Uint64(raw[8:]),
		To:     binary.BigEndian.Uint64(raw[16:]),
		Reason: string(raw[24:]),
	}
	return g, (g.Reason == GapFull || g.Reason == GapAge) && g.Count > 0 && g.From <= g.To
}

// indexKey orders the records of a class by age.
func indexKey(class string, id uint64) []byte {
	return append(classPrefix(class), numberKey(id)...)
}

// classPrefix is what the index keys of a class begin with; no class holds a
// zero byte.
func classPrefix(class string) []byte { return append([]byte(class), 0) }

// gapKey is where the id of a class's open gap marker is kept.
func gapKey(class, reason string) []byte { return append(classPrefix(class), reason...) }
