package boltpage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	info, err := Check(bytes.NewReader(raw), int64(len(raw)), Newest, func(p Problem) { problems = append(problems, p) })
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
		ignore := func(p Problem) { _ = p.String() }
		Check(bytes.NewReader(patch), int64(len(patch)), Newest, ignore)
		raw := bytes.Clone(sound)
		if int(at) < len(raw) {
			copy(raw[at:], patch)
		}
		Check(bytes.NewReader(raw), int64(len(raw)), Newest, ignore)
	})
}
