package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vigil/secure"
	"vigil/store"
	"vigil/store/storetest"
)

// commit is one bbolt commit as the disk saw it: the file before, and the pages
// that were written. bbolt writes data pages in ascending order, syncs, writes
// one root page and syncs; only what comes before a sync is sure to come before
// what follows it. Pages written with the bytes they had are not listed; they
// change nothing.
type commit struct {
	name   string
	before []byte // as long as the file after
	data   []int  // data pages, ascending
	root   int    // 0 or 1
	after  []byte
	gens   [2]uint64 // header generation before and after
}

const pageBytes = 4096

// recorder takes an image of the file after each commit.
type recorder struct {
	t       *testing.T
	s       *store.Store
	path    string
	image   []byte
	gen     uint64
	commits []commit
}

func (r *recorder) step(name string, do func() error) {
	r.t.Helper()
	if err := do(); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	after, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	c := commit{name: name, before: append(r.image, make([]byte, len(after)-len(r.image))...), after: after, root: -1}
	for i := range len(after) / pageBytes {
		if bytes.Equal(pageOf(c.before, i), pageOf(after, i)) {
			continue
		}
		switch {
		case i >= 2:
			c.data = append(c.data, i)
		case c.root >= 0:
			r.t.Fatalf("%s: more than one commit", name)
		default:
			c.root = i
		}
	}
	if c.root < 0 {
		r.t.Fatalf("%s: nothing was committed", name)
	}
	c.gens = [2]uint64{r.gen, r.s.Generation()}
	r.gen, r.image = c.gens[1], bytes.Clone(after)
	r.commits = append(r.commits, c)
}

func pageOf(image []byte, i int) []byte { return image[i*pageBytes : (i+1)*pageBytes] }

// record makes a store and commits of every kind.
func record(t *testing.T, keyring *secure.Keyring) []commit {
	if os.Getpagesize() != pageBytes {
		t.Skip("this test is written for pages of 4096 bytes")
	}
	rng := newRand(t)
	path := filepath.Join(t.TempDir(), "v.db")
	s := storetest.Open(t, store.Options{Path: path, Keyring: keyring, Outbox: store.OutboxLimits{MaxRecords: 3}})
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, s: s, path: path, image: image, gen: s.Generation()}
	tx := func(name string, fn func(tx *store.Tx) error) {
		t.Helper()
		r.step(name, func() error { return s.CommitOnly(fn) })
	}
	var ids []string
	put := func(tx *store.Tx) error {
		id := store.NewSubjectID()
		ids = append(ids, id)
		_, errAudit := tx.AppendAudit(store.AuditEvent{Type: "enrol", Subject: id})
		return errors.Join(errAudit, tx.PutSubject(store.Subject{ID: id, Name: "n"},
			[]store.Template{randomTemplate(rng, model, 512), randomTemplate(rng, model, 512), randomTemplate(rng, model, 512)}))
	}
	for i := range 8 {
		tx(fmt.Sprint("enrol ", i), put)
	}
	for i := range 5 {
		tx(fmt.Sprint("decision ", i), func(tx *store.Tx) error {
			_, errAudit := tx.AppendAudit(store.AuditEvent{Type: "decision"})
			_, errOutbox := tx.AppendOutbox("event", bytes.Repeat([]byte("x"), 700))
			return errors.Join(errAudit, errOutbox)
		})
	}
	for i := range 2 {
		tx(fmt.Sprint("add ", i), addTo(ids[1], randomTemplate(rng, model, 512), randomTemplate(rng, model, 512)))
	}
	tx("delete", func(tx *store.Tx) error { return tx.DeleteSubject(ids[2]) })
	r.step("erase", s.Erase)
	tx("command", func(tx *store.Tx) error {
		return errors.Join(tx.RecordCommand("c", time.Now().Add(time.Hour), nil), tx.DeleteSubject(ids[0]), tx.Put("state", []byte("1")))
	})
	r.step("erase again", s.Erase)
	tx("deliver", func(tx *store.Tx) error { return tx.DeleteOutbox(1, 2, 3, 4) })
	return r.commits
}

// TestEveryWritePrefix cuts the power at every write of every commit: after each
// page, in the middle of each page, with the unsynced pages in any order, and in
// the middle of the root page. What is found must be the state before the
// commit, or, with the whole root page there, the one after.
func TestEveryWritePrefix(t *testing.T) {
	keyring := storetest.Keyring(t)
	commits := record(t, keyring)
	rng := newRand(t)
	v := &replayer{t: t, keyring: keyring, path: filepath.Join(t.TempDir(), "crashed.db")}
	for _, c := range commits {
		image := bytes.Clone(c.before)
		for i, page := range c.data {
			v.crash(c, fmt.Sprintf("before write %d", i), image, c.gens[0])
			torn := 512 * (1 + rng.IntN(pageBytes/512-1))
			copy(pageOf(image, page)[:torn], pageOf(c.after, page))
			v.crash(c, fmt.Sprintf("in write %d, after %d bytes", i, torn), image, c.gens[0])
			copy(pageOf(image, page), pageOf(c.after, page))
		}
		v.crash(c, "before the root page", image, c.gens[0])
		v.anyOrder(c, rng)
		v.tornRoot(c, image)
	}
	t.Logf("%d commits, %d crashes", len(commits), v.crashes)
}

type replayer struct {
	t       *testing.T
	keyring *secure.Keyring
	path    string
	crashes int
}

// anyOrder applies random subsets of the unsynced pages.
func (v *replayer) anyOrder(c commit, rng *rand.Rand) {
	for range 3 {
		image := bytes.Clone(c.before)
		var applied []int
		for _, page := range c.data {
			if rng.IntN(2) == 0 {
				copy(pageOf(image, page), pageOf(c.after, page))
				applied = append(applied, page)
			}
		}
		v.crash(c, fmt.Sprintf("with pages %v", applied), image, c.gens[0])
	}
}

// tornRoot cuts the root page, whose content is 80 bytes, after every 8 bytes.
func (v *replayer) tornRoot(c commit, image []byte) {
	for n := 8; n <= 80; n += 8 {
		torn := bytes.Clone(image)
		copy(pageOf(torn, c.root)[:n], pageOf(c.after, c.root))
		v.crash(c, fmt.Sprintf("in the root page, after %d bytes", n), torn, c.gens[0], c.gens[1])
	}
	v.crash(c, "after the root page", c.after, c.gens[1])
}

// crash opens the image, which must show one of the generations, checks it, and
// goes on working with it.
func (v *replayer) crash(c commit, when string, image []byte, want ...uint64) {
	v.t.Helper()
	v.crashes++
	fail := func(err error) { v.t.Helper(); v.t.Errorf("%s: %s: %v", c.name, when, err) }
	if err := os.WriteFile(v.path, image, 0o600); err != nil {
		v.t.Fatal(err)
	}
	before, err := store.Check(v.path, v.keyring)
	if err != nil || !slices.Contains(want, before.Generation) {
		fail(fmt.Errorf("check shows generation %d, want one of %v: %v", before.Generation, want, err))
		return
	}
	s, err := store.Open(store.Options{Path: v.path, Keyring: v.keyring})
	if err != nil {
		fail(err)
		return
	}
	update(v.t, s, func(tx *store.Tx) error {
		_, err := tx.AppendAudit(store.AuditEvent{Type: "started"})
		return err
	})
	if err := s.Close(); err != nil {
		fail(err)
	}
	after, err := store.Check(v.path, v.keyring)
	if err := errors.Join(err, after.Err()); err != nil {
		fail(err)
	}
	if after.Audit != before.Audit+1 || after.Subjects != before.Subjects {
		fail(fmt.Errorf("there are %d events and %d subjects, before there were %d and %d", after.Audit, after.Subjects, before.Audit, before.Subjects))
	}
}

// torn is a store at rest that tests damage.
type torn struct {
	t       *testing.T
	keyring *secure.Keyring
	path    string
	image   []byte
	intact  store.Report
}

func newTorn(t *testing.T) *torn {
	keyring := storetest.Keyring(t)
	commits := record(t, keyring)
	f := &torn{t: t, keyring: keyring, path: filepath.Join(t.TempDir(), "torn.db"), image: commits[len(commits)-2].after}
	f.intact = f.check("intact", f.image)
	if !f.intact.OK() {
		t.Fatalf("the store was damaged before the test began: %v", f.intact.Problems)
	}
	return f
}

// check writes the image and checks and opens it. Whatever is wrong with it,
// the answer is a report or one of the documented errors, and the two agree.
func (f *torn) check(name string, image []byte) store.Report {
	f.t.Helper()
	if err := os.WriteFile(f.path, image, 0o600); err != nil {
		f.t.Fatal(err)
	}
	documented := func(err error) bool {
		return err == nil || errors.Is(err, store.ErrKeyring) || errors.Is(err, store.ErrSchema)
	}
	report, err := store.Check(f.path, f.keyring)
	if !documented(err) {
		f.t.Errorf("%s: check gives %v", name, err)
	}
	s, openErr := store.Open(store.Options{Path: f.path, Keyring: f.keyring})
	if openErr == nil {
		s.Close()
	} else if !documented(openErr) && !errors.Is(openErr, store.ErrCorrupt) {
		f.t.Errorf("%s: open gives %v", name, openErr)
	}
	if err != nil {
		report.ProblemCount++
	}
	if openErr != nil && report.OK() {
		f.t.Errorf("%s: check finds nothing, but open gives %v", name, openErr)
	}
	return report
}

// foundOrHarmless expects the damage to be found, unless everything is still
// there; it says which.
func (f *torn) foundOrHarmless(name string, image []byte) (found bool) {
	f.t.Helper()
	got := f.check(name, image)
	if !got.OK() {
		return true
	}
	got.Checked, got.FileBytes = f.intact.Checked, f.intact.FileBytes
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", f.intact) {
		f.t.Errorf("%s: check finds nothing, but shows %+v, before %+v", name, got, f.intact)
	}
	return false
}

// usedPages counts the pages up to the last that was ever written.
func (f *torn) usedPages() int {
	n := len(f.image) / pageBytes
	for n > 0 && bytes.Equal(pageOf(f.image, n-1), make([]byte, pageBytes)) {
		n--
	}
	return n
}

func TestCutFiles(t *testing.T) {
	f := newTorn(t)
	used := f.usedPages() * pageBytes
	for _, n := range []int{1, 100, pageBytes - 1, pageBytes, 2 * pageBytes, 3*pageBytes + 7, used / 2, used - 1} {
		if n <= 0 || n >= used {
			t.Fatal("the store is too small for this test")
		}
		if f.check(fmt.Sprintf("cut to %d bytes", n), f.image[:n]).OK() {
			t.Errorf("a file cut to %d bytes passes the check", n)
		}
	}
}

func TestDamagedPages(t *testing.T) {
	f := newTorn(t)
	rng := newRand(t)
	found := 0
	for page := range f.usedPages() {
		for n := range 12 {
			image := bytes.Clone(f.image)
			at := rng.IntN(pageBytes)
			if n < 6 {
				at = rng.IntN(96) // headers and elements
			}
			pageOf(image, page)[at] ^= 1 << rng.IntN(8)
			if f.foundOrHarmless(fmt.Sprintf("byte %d of page %d flipped", at, page), image) {
				found++
			}
		}
		for name, content := range map[string][]byte{"zeros": make([]byte, pageBytes), "ones": bytes.Repeat([]byte{0xFF}, pageBytes), "another page": pageOf(f.image, 3)} {
			image := bytes.Clone(f.image)
			copy(pageOf(image, page), content)
			if f.foundOrHarmless(fmt.Sprintf("page %d is %s", page, name), image) {
				found++
			}
		}
	}
	t.Logf("%d damages were found, the others hit nothing that is in use", found)
	if found < 50 {
		t.Error("too little was found for this test to mean anything")
	}
}

// TestFlippedRecords flips one byte of a record of every bucket that holds
// ciphertext, and expects Check to name the bucket.
func TestFlippedRecords(t *testing.T) {
	f := newTorn(t)
	rng := newRand(t)
	values := make(map[string][][]byte)
	mutate(t, f.path, func(btx *bbolt.Tx) error {
		for _, name := range store.AllBuckets() {
			btx.Bucket([]byte(name)).ForEach(func(_, v []byte) error {
				if len(v) > 32 { // numbers and marks are dealt with elsewhere
					values[name] = append(values[name], bytes.Clone(v))
				}
				return nil
			})
		}
		return nil
	})
	for _, name := range []string{"meta", "subjects", "subject_keys", "templates", "audit", "audit_keys", "outbox", "outbox_keys", "commands", "settings"} {
		if len(values[name]) == 0 {
			t.Errorf("bucket %s is empty, nothing is tested", name)
		}
		for _, v := range values[name] {
			bad := bytes.Clone(v)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			f.flipped(name, bytes.ReplaceAll(f.image, v, bad))
		}
	}
}

func (f *torn) flipped(bucket string, image []byte) {
	f.t.Helper()
	report := f.check("record of "+bucket, image)
	for _, p := range report.Problems {
		if p.Bucket == bucket && p.Key != "" && p.Remedy != "" {
			return
		}
	}
	f.t.Errorf("a flipped byte in bucket %s is not named: %+v", bucket, report.Problems)
}
