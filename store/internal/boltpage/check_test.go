package boltpage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// image makes a file with branch pages, overflow pages, inline and nested
// buckets and a free list.
func image(t testing.TB, pageSize int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		err := db.Update(func(tx *bbolt.Tx) error {
			big, err := tx.CreateBucketIfNotExists([]byte("big"))
			if err != nil {
				return err
			}
			for i := range 400 {
				if err := big.Put(fmt.Appendf(nil, "key %05d", i*(round+1)), bytes.Repeat([]byte{byte(i)}, 40)); err != nil {
					return err
				}
			}
			if err := big.Put([]byte("long"), make([]byte, 5*pageSize)); err != nil {
				return err
			}
			nested, err := big.CreateBucketIfNotExists([]byte("nested"))
			if err != nil {
				return err
			}
			_, err = tx.CreateBucketIfNotExists(fmt.Appendf(nil, "inline %d", round))
			return errors.Join(err, nested.Put(fmt.Append(nil, round), make([]byte, pageSize/3)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func check(t testing.TB, raw []byte) (Info, []Problem) {
	t.Helper()
	var problems []Problem
	r := bytes.NewReader(raw)
	info, err := Find(r, r.Size(), Newest).Check(r, r.Size(), func(p Problem) { problems = append(problems, p) })
	if err != nil {
		t.Fatal(err)
	}
	return info, problems
}

func TestSoundFiles(t *testing.T) {
	for _, size := range []int{1024, 4096, 65536} {
		info, problems := check(t, image(t, size))
		if len(problems) != 0 || info.PageBytes != size || info.TxID == 0 || info.Free == 0 || info.DamagedRoot {
			t.Errorf("page size %d: %+v, %v", size, info, problems)
		}
	}
}

func TestOneDamagedRoot(t *testing.T) {
	for root := range 2 {
		raw := image(t, 1024)
		raw[root*1024+pageHeader+20] ^= 1
		info, problems := check(t, raw)
		if len(problems) != 0 || !info.DamagedRoot || info.PageBytes != 1024 {
			t.Errorf("root %d: %+v, %v", root, info, problems)
		}
	}
	raw := image(t, 1024)
	raw[pageHeader]++
	raw[1024+pageHeader]++
	if _, problems := check(t, raw); len(problems) != 1 {
		t.Errorf("both roots damaged: %v", problems)
	}
}

// TestEachProblem makes one problem of each kind by hand.
func TestEachProblem(t *testing.T) {
	const size = 1024
	sound := image(t, size)
	m := readMetas(bytes.NewReader(sound), int64(len(sound)))
	newest := m[0]
	if m[1].txid > m[0].txid {
		newest = m[1]
	}
	at := func(raw []byte, page uint64) []byte { return raw[page*size:] }
	free := func(raw []byte) []byte { return at(raw, newest.freelist)[pageHeader:] }
	count := func(raw []byte, page uint64) []byte { return at(raw, page)[10:] }
	// The root page's first bucket is big, whose tree has a branch page.
	root := parsePage(at(sound, newest.root)[:size])
	elements, err := root.elements()
	if err != nil || string(elements[0].key) != "big" {
		t.Fatalf("unexpected root page: %v", err)
	}
	big := order.Uint64(elements[0].value)
	child := func(page uint64) uint64 { return order.Uint64(at(sound, page)[pageHeader+8:]) }
	firstLeaf := big
	for parsePage(at(sound, firstLeaf)).flags == flagBranch {
		firstLeaf = child(firstLeaf)
	}
	if firstLeaf == big {
		t.Fatal("the tree is too small for this test")
	}
	cases := []struct {
		name, want string
		do         func(raw []byte)
	}{
		{"in use and free", "in use and free", func(raw []byte) { order.PutUint64(free(raw), big) }},
		{"free twice", "free twice", func(raw []byte) { copy(free(raw)[8:16], free(raw)[:8]) }},
		{"free outside", "outside the file", func(raw []byte) { order.PutUint64(free(raw), newest.highWater) }},
		{"free list too long", "does not fit", func(raw []byte) { order.PutUint16(count(raw, newest.freelist), 0xFFFE) }},
		{"leak", "neither used nor free", func(raw []byte) {
			order.PutUint16(count(raw, newest.freelist), order.Uint16(count(raw, newest.freelist))-1)
		}},
		{"wrong kind of free list", "not the free list", func(raw []byte) { order.PutUint16(at(raw, newest.freelist)[8:], flagLeaf) }},
		{"used twice", "referred to twice", func(raw []byte) { order.PutUint64(at(raw, big)[pageHeader+elementSize+8:], child(big)) }},
		{"reference outside", "outside the file", func(raw []byte) { order.PutUint64(at(raw, big)[pageHeader+8:], 1<<40) }},
		{"wrong page id", "damaged page header", func(raw []byte) { order.PutUint64(at(raw, firstLeaf), 7777) }},
		{"overflow outside", "damaged page header", func(raw []byte) { order.PutUint32(at(raw, firstLeaf)[12:], 1<<30) }},
		{"wrong kind", "not part of a tree", func(raw []byte) { order.PutUint16(at(raw, firstLeaf)[8:], flagMeta) }},
		{"too many elements", "do not fit", func(raw []byte) { order.PutUint16(count(raw, firstLeaf), 0xFFFF) }},
		{"element outside", "points outside", func(raw []byte) { order.PutUint32(at(raw, firstLeaf)[pageHeader+4:], 1<<20) }},
		{"unknown flags", "unknown flags", func(raw []byte) { order.PutUint32(at(raw, firstLeaf)[pageHeader:], 2) }},
		{"keys out of order", "out of order", func(raw []byte) {
			second := at(raw, firstLeaf)[pageHeader+elementSize:]
			at(raw, firstLeaf)[pageHeader+elementSize+order.Uint32(second[4:])] = 'a'
		}},
		{"key of another page", "out of order", func(raw []byte) {
			first := at(raw, firstLeaf)[pageHeader:]
			at(raw, firstLeaf)[pageHeader+order.Uint32(first[4:])] = 'z'
		}},
	}
	for _, c := range cases {
		raw := bytes.Clone(sound)
		c.do(raw)
		found := false
		_, problems := check(t, raw)
		for _, p := range problems {
			found = found || strings.Contains(p.String(), c.want)
		}
		if !found {
			t.Errorf("%s: got %v", c.name, problems)
		}
	}
}

// TestAgreesWithBolt damages pages at random: whenever bbolt's own checker finds
// something, or falls over, so must Check. (The reverse does not hold, it looks
// at more.)
func TestAgreesWithBolt(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	sound := image(t, 1024)
	path := filepath.Join(t.TempDir(), "damaged.db")
	passed := 0
	for range 400 {
		raw := bytes.Clone(sound)
		page := 2 + rng.IntN(len(raw)/1024-2)
		for range 1 + rng.IntN(3) {
			raw[page*1024+rng.IntN(128)] ^= 1 << rng.IntN(8)
		}
		if _, problems := check(t, raw); len(problems) > 0 {
			continue // bbolt might crash the test
		}
		passed++
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: time.Second})
		if err != nil {
			t.Fatalf("page %d: bbolt cannot open it: %v", page, err)
		}
		db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("page %d: only bbolt finds %v", page, err)
			}
			return nil
		})
		db.Close()
	}
	t.Logf("%d of 400 damages were harmless", passed)
	if passed == 0 || passed == 400 {
		t.Error("this test compared nothing")
	}
}

// FuzzCheck patches a sound file behind its root pages, whose checksums would
// otherwise turn nearly every input away, and also reads the patch as a file.
func FuzzCheck(f *testing.F) {
	sound := image(f, 1024)
	f.Add(uint32(2048), sound[2048:2048+64])
	f.Add(uint32(3*1024), sound[5*1024:6*1024])
	f.Add(uint32(4*1024+8), []byte{2, 0, 200, 0, 255, 255, 255, 255})
	f.Add(uint32(0), sound[:200])
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		raw := bytes.Clone(sound)
		if int(at) < len(raw) {
			copy(raw[at:], patch)
		}
		for _, file := range [][]byte{raw, patch} {
			r := bytes.NewReader(file)
			Find(r, r.Size(), Newest).Check(r, r.Size(), func(p Problem) { _ = p.String() })
		}
	})
}
