package boltpage

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
)

// Layout of the file, from bbolt's internal/common: a page begins with its id
// (uint64), flags (uint16), count (uint16) and overflow (uint32), all in the
// machine's byte order; pages 0 and 1 are roots.
const (
	pageHeader  = 16
	elementSize = 16 // of branch and leaf pages alike
	metaSize    = 64 // without the page header, checksum included

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	elementIsBucket = 0x01

	magic         = 0xED0CDAED
	formatVersion = 2

	noFreelist = ^uint64(0)

	minPageBytes = 512
	maxPageBytes = 16 << 20
)

var order = binary.NativeEndian

// page is a page with its overflow.
type page struct {
	id       uint64
	flags    uint16
	count    int
	overflow uint64
	data     []byte // with the header
}

func parsePage(data []byte) page {
	return page{
		id:       order.Uint64(data),
		flags:    order.Uint16(data[8:]),
		count:    int(order.Uint16(data[10:])),
		overflow: uint64(order.Uint32(data[12:])),
		data:     data,
	}
}

// meta is a root page.
type meta struct {
	pageBytes uint32
	root      uint64
	freelist  uint64
	highWater uint64 // pages from this id on are not in use
	txid      uint64
}

// parseMeta reads a root page; ok is false when its checksum is wrong.
func parseMeta(data []byte) (m meta, ok bool) {
	if len(data) < pageHeader+metaSize {
		return m, false
	}
	raw := data[pageHeader:]
	sum := fnv.New64a()
	sum.Write(raw[:metaSize-8])
	m = meta{
		pageBytes: order.Uint32(raw[8:]),
		root:      order.Uint64(raw[16:]),
		freelist:  order.Uint64(raw[32:]),
		highWater: order.Uint64(raw[40:]),
		txid:      order.Uint64(raw[48:]),
	}
	ok = order.Uint32(raw) == magic && order.Uint32(raw[4:]) == formatVersion && order.Uint64(raw[56:]) == sum.Sum64()
	return m, ok && m.pageBytes >= minPageBytes && m.pageBytes <= maxPageBytes && bits.OnesCount32(m.pageBytes) == 1
}

// readMetas finds the valid root pages. The first tells the page size; when it
// is damaged the second is looked for at every size there can be.
func readMetas(r io.ReaderAt, sizeBytes int64) []meta {
	var out []meta
	read := func(offset int64) (meta, bool) {
		buf := make([]byte, pageHeader+metaSize)
		if n, _ := r.ReadAt(buf, offset); n < len(buf) {
			return meta{}, false
		}
		return parseMeta(buf)
	}
	if m, ok := read(0); ok {
		out = append(out, m)
	}
	for size := int64(minPageBytes); size <= maxPageBytes && size < sizeBytes; size *= 2 {
		if m, ok := read(size); ok && int64(m.pageBytes) == size && (len(out) == 0 || out[0].pageBytes == m.pageBytes) {
			return append(out, m)
		}
	}
	return out
}

// element is an entry of a branch or leaf page.
type element struct {
	key, value []byte
	child      uint64 // branch
	isBucket   bool   // leaf
}

// elements parses the entries of a branch or leaf page.
func (p page) elements() ([]element, error) {
	if pageHeader+p.count*elementSize > len(p.data) {
		return nil, fmt.Errorf("%d elements do not fit", p.count)
	}
	out := make([]element, p.count)
	for i := range out {
		at := pageHeader + i*elementSize
		e := p.data[at:]
		var pos, keyBytes, valueBytes uint64
		if p.flags == flagBranch {
			pos, keyBytes = uint64(order.Uint32(e)), uint64(order.Uint32(e[4:]))
			out[i].child = order.Uint64(e[8:])
		} else {
			flags := order.Uint32(e)
			if flags&^elementIsBucket != 0 {
				return nil, fmt.Errorf("element %d has unknown flags %#x", i, flags)
			}
			out[i].isBucket = flags == elementIsBucket
			pos, keyBytes, valueBytes = uint64(order.Uint32(e[4:])), uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
		}
		start := uint64(at) + pos
		if start < uint64(pageHeader+p.count*elementSize) || start+keyBytes+valueBytes > uint64(len(p.data)) {
			return nil, fmt.Errorf("element %d points outside the page", i)
		}
		out[i].key = p.data[start : start+keyBytes]
		out[i].value = p.data[start+keyBytes : start+keyBytes+valueBytes]
	}
	return out, nil
}
