package boltpage

import (
	"bytes"
	"fmt"
	"io"
)

// Newest makes Check look at the state with the highest transaction number.
const Newest = ^uint64(0)

// maxDepth bounds trees and nested buckets; a bbolt tree of four billion pages
// is less than twenty levels deep.
const maxDepth = 64

// Problem is one thing that is wrong. Bucket is the path of buckets to it, empty
// for the file as a whole.
type Problem struct {
	Bucket string
	Page   uint64
	Text   string
}

// String renders the problem on one line.
func (p Problem) String() string {
	if p.Bucket == "" {
		return fmt.Sprintf("page %d: %s", p.Page, p.Text)
	}
	return fmt.Sprintf("bucket %s, page %d: %s", p.Bucket, p.Page, p.Text)
}

// Info is what Check learned about the file.
type Info struct {
	PageBytes   int
	TxID        uint64 // of the state that was looked at
	Pages       uint64 // below the high-water mark
	Free        uint64
	DamagedRoot bool // one of the two root pages is not valid
}

// State is one state of a file: what a root page refers to.
type State struct {
	meta  meta
	info  Info
	found bool
}

// Find reads the root pages of a file of sizeBytes bytes and picks the state of
// transaction txid, or of Newest. It never fails: Check of a state that is not
// there reports that. Root pages are overwritten by every second transaction, so
// in a file that is in use Find must not run while one commits.
func Find(r io.ReaderAt, sizeBytes int64, txid uint64) State {
	var s State
	metas := readMetas(r, sizeBytes)
	for _, m := range metas {
		if txid == m.txid || txid == Newest && (!s.found || m.txid > s.meta.txid) {
			s.meta, s.found = m, true
		}
	}
	s.info = Info{PageBytes: int(s.meta.pageBytes), TxID: s.meta.txid, Pages: s.meta.highWater, DamagedRoot: len(metas) < 2}
	return s
}

// Check reads all pages of the state and reports each problem. It never panics,
// whatever the bytes are, and follows no page twice. The error is of the reader;
// a problem is not an error. sizeBytes is the size of the file; the state's pages
// must not be changed meanwhile.
func (s State) Check(r io.ReaderAt, sizeBytes int64, report func(Problem)) (Info, error) {
	c := &checker{r: r, report: report, meta: s.meta}
	if !s.found {
		c.problem("", 0, "no valid root page")
		return s.info, nil
	}
	have := uint64(sizeBytes) / uint64(s.meta.pageBytes)
	if s.meta.highWater > have {
		c.problem("", 0, fmt.Sprintf("file is cut: %d pages are in use, %d are there", s.meta.highWater, have))
		return s.info, nil
	}
	c.used = make([]use, s.meta.highWater)
	c.walk()
	s.info.Free = c.free
	return s.info, c.err
}

// use says what a page is used for.
type use uint8

const (
	unused use = iota
	inTree
	inFreelist // listed as free
)

type checker struct {
	r      io.ReaderAt
	report func(Problem)
	meta   meta
	used   []use
	free   uint64
	err    error // of the reader; ends the walk
}

func (c *checker) problem(bucket string, page uint64, text string) {
	c.report(Problem{bucket, page, text})
}

// walk looks at everything that the root page refers to.
func (c *checker) walk() {
	if c.meta.highWater < 2 {
		c.problem("", 0, "high-water mark is inside the root pages")
		return
	}
	c.used[0], c.used[1] = inTree, inTree
	c.tree("", c.meta.root, span{}, 0)
	if c.meta.freelist != noFreelist {
		c.freelist()
		c.leaks()
	}
}

// load reads a page and marks it, with its overflow, as used.
func (c *checker) load(bucket string, id uint64) (page, bool) {
	if c.err != nil {
		return page{}, false
	}
	if id < 2 || id >= c.meta.highWater {
		c.problem(bucket, id, "page is referred to, but outside the file")
		return page{}, false
	}
	size := int64(c.meta.pageBytes)
	data := make([]byte, size)
	if _, c.err = c.r.ReadAt(data, int64(id)*size); c.err != nil {
		return page{}, false
	}
	p := parsePage(data)
	if p.id != id || p.overflow >= c.meta.highWater-id {
		c.problem(bucket, id, fmt.Sprintf("damaged page header: it says page %d with %d more", p.id, p.overflow))
		return page{}, false
	}
	if !c.mark(bucket, id, p.overflow) {
		return page{}, false
	}
	if p.overflow > 0 {
		p.data = make([]byte, size*int64(p.overflow+1))
		if _, c.err = c.r.ReadAt(p.data, int64(id)*size); c.err != nil {
			return page{}, false
		}
	}
	return p, true
}

func (c *checker) mark(bucket string, id, overflow uint64) bool {
	for i := id; i <= id+overflow; i++ {
		if c.used[i] != unused {
			c.problem(bucket, i, "page is referred to twice")
			return false
		}
		c.used[i] = inTree
	}
	return true
}

// span is the range of keys that a page may hold: from min on (nil: any), below
// max (nil: any).
type span struct{ min, max []byte }

// tree checks a page of a bucket and all below it.
func (c *checker) tree(bucket string, id uint64, keys span, depth int) {
	if depth > maxDepth {
		c.problem(bucket, id, "tree is too deep")
		return
	}
	p, ok := c.load(bucket, id)
	if !ok {
		return
	}
	elements, ok := c.elements(bucket, id, p, keys)
	if !ok {
		return
	}
	for i, e := range elements {
		switch {
		case p.flags == flagBranch:
			below := span{e.key, keys.max}
			if i+1 < len(elements) {
				below.max = elements[i+1].key
			}
			c.tree(bucket, e.child, below, depth+1)
		case e.isBucket:
			c.bucket(childPath(bucket, e.key), id, e.value, depth+1)
		}
	}
}

// elements parses a page and checks the order of its keys.
func (c *checker) elements(bucket string, id uint64, p page, keys span) ([]element, bool) {
	if p.flags != flagBranch && p.flags != flagLeaf || p.flags == flagBranch && p.count == 0 {
		c.problem(bucket, id, fmt.Sprintf("page of kind %#x with %d elements is not part of a tree", p.flags, p.count))
		return nil, false
	}
	elements, err := p.elements()
	if err != nil {
		c.problem(bucket, id, err.Error())
		return nil, false
	}
	for i, e := range elements {
		low := keys.min
		if i > 0 {
			low = elements[i-1].key
		}
		order := bytes.Compare(low, e.key)
		if i > 0 && order >= 0 || low != nil && order > 0 || keys.max != nil && bytes.Compare(e.key, keys.max) >= 0 {
			c.problem(bucket, id, fmt.Sprintf("key %d is out of order", i))
			return nil, false
		}
	}
	return elements, true
}

// bucket checks a nested bucket, whose small contents may lie inline.
func (c *checker) bucket(path string, id uint64, value []byte, depth int) {
	const rootAndSequence = 16
	if depth > maxDepth {
		c.problem(path, id, "buckets are nested too deep")
		return
	}
	if len(value) < rootAndSequence {
		c.problem(path, id, "bucket entry is too short")
		return
	}
	if root := order.Uint64(value); root != 0 {
		c.tree(path, root, span{}, depth)
		return
	}
	inline := value[rootAndSequence:]
	if len(inline) < pageHeader {
		c.problem(path, id, "inline bucket is too short")
		return
	}
	p := parsePage(inline)
	if p.flags != flagLeaf {
		c.problem(path, id, fmt.Sprintf("inline bucket has page kind %#x", p.flags))
		return
	}
	elements, ok := c.elements(path, id, p, span{})
	if !ok {
		return
	}
	for _, e := range elements {
		if e.isBucket {
			c.problem(path, id, "inline bucket holds a bucket")
		}
	}
}

func childPath(parent string, key []byte) string {
	name := fmt.Sprintf("%q", key)
	name = name[1 : len(name)-1]
	if parent == "" {
		return name
	}
	return parent + "/" + name
}

// freelist checks the list of free pages.
func (c *checker) freelist() {
	p, ok := c.load("", c.meta.freelist)
	if !ok {
		return
	}
	if p.flags != flagFreelist {
		c.problem("", p.id, fmt.Sprintf("page of kind %#x is not the free list", p.flags))
		return
	}
	ids, n := p.data[pageHeader:], uint64(p.count)
	if n == 0xFFFF && len(ids) >= 8 { // the true number does not fit and comes first
		n, ids = order.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids)/8) {
		c.problem("", p.id, fmt.Sprintf("free list of %d pages does not fit", n))
		return
	}
	for i := range n {
		id := order.Uint64(ids[8*i:])
		switch {
		case id < 2 || id >= c.meta.highWater:
			c.problem("", id, "free page is outside the file")
		case c.used[id] == inTree:
			c.problem("", id, "page is in use and free")
		case c.used[id] == inFreelist:
			c.problem("", id, "page is free twice")
		default:
			c.used[id] = inFreelist
			c.free++
		}
	}
}

// leaks finds pages that are neither used nor free.
func (c *checker) leaks() {
	for id, u := range c.used {
		if u == unused {
			c.problem("", uint64(id), "page is neither used nor free")
		}
	}
}
