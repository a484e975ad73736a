package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vigil/secure"
	"vigil/store"
	"vigil/store/storetest"
)

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func appendEvents(t testing.TB, s *store.Store, n int) {
	t.Helper()
	update(t, s, func(tx *store.Tx) error {
		for i := range n {
			if _, err := tx.AppendAudit(store.AuditEvent{Type: "decision", Subject: "s", Detail: map[string]any{"i": i}}); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestAuditIsReadBackAcrossSegments(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := storetest.Open(t, store.Options{Now: func() time.Time { return now }})
	const total = 2*store.SegmentRecords + 10
	appendEvents(t, s, total/2)
	appendEvents(t, s, total-total/2)
	next := uint64(0)
	for {
		var page []store.AuditEntry
		view(t, s, func(tx *store.Tx) (err error) { page, err = tx.Audit(next+1, 700); return err })
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			next++
			if e.Seq != next || e.Type != "decision" || !e.Time.Equal(now) {
				t.Fatalf("event %d is %+v", next, e)
			}
		}
	}
	if next != total {
		t.Errorf("read %d events, want %d", next, total)
	}
}

// TestAlteredLogsAreFound does to a closed store what somebody with the disk but
// without the keys can do.
func TestAlteredLogsAreFound(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	appendEvents(t, s, 5)
	update(t, s, func(tx *store.Tx) error { return tx.Put("lockout/face", []byte("1")) })
	stale := s.RawRecord("settings", hex.EncodeToString([]byte("lockout/face")))
	update(t, s, func(tx *store.Tx) error { return tx.Put("lockout/face", []byte("5")) })
	oldHeader := s.RawRecord("meta", hex.EncodeToString([]byte("header")))
	appendEvents(t, s, 5)
	for i := range 4 {
		update(t, s, func(tx *store.Tx) error {
			_, err := tx.AppendOutbox("event", fmt.Append(nil, "payload ", i))
			return err
		})
	}
	rng := newRand(t)
	a := enrol(t, s, "a", randomTemplate(rng, model, 128), randomTemplate(rng, model, 128))
	b := enrol(t, s, "b", randomTemplate(rng, model, 128))
	update(t, s, func(tx *store.Tx) error {
		return tx.RecordCommand("cmd-1", time.Now().Add(time.Hour), []byte("done"))
	})
	s.Close()
	idA, _ := hex.DecodeString(a)
	idB, _ := hex.DecodeString(b)
	cases := []struct {
		name   string
		bucket string // that the report must name
		opens  bool   // Open need not notice
		do     func(get func(string) *bbolt.Bucket) error
	}{
		{"audit tail cut", "audit", false, func(get func(string) *bbolt.Bucket) error { return get("audit").Delete(key(10)) }},
		{"audit event dropped", "audit", true, func(get func(string) *bbolt.Bucket) error { return get("audit").Delete(key(4)) }},
		{"audit first event dropped", "audit", true, func(get func(string) *bbolt.Bucket) error { return get("audit").Delete(key(1)) }},
		{"audit events swapped", "audit", true, func(get func(string) *bbolt.Bucket) error { return swap(get("audit"), key(3), key(4)) }},
		{"audit event edited", "audit", true, func(get func(string) *bbolt.Bucket) error { return flip(get("audit"), key(6), 50) }},
		{"audit hash edited", "audit", true, func(get func(string) *bbolt.Bucket) error { return flip(get("audit"), key(6), 3) }},
		{"audit event added", "audit", false, func(get func(string) *bbolt.Bucket) error {
			return get("audit").Put(key(11), bytes.Clone(get("audit").Get(key(10))))
		}},
		{"audit emptied", "audit", false, func(get func(string) *bbolt.Bucket) error {
			for i := range uint64(10) {
				if err := get("audit").Delete(key(i + 1)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"audit key edited", "audit_keys", true, func(get func(string) *bbolt.Bucket) error { return flip(get("audit_keys"), key(0), 30) }},
		{"audit key dropped", "audit", true, func(get func(string) *bbolt.Bucket) error { return get("audit_keys").Delete(key(0)) }},
		{"audit and header rolled back", "outbox", false, func(get func(string) *bbolt.Bucket) error {
			for i := uint64(6); i <= 10; i++ {
				if err := get("audit").Delete(key(i)); err != nil {
					return err
				}
			}
			return get("meta").Put([]byte("header"), oldHeader)
		}},
		{"header edited", "meta", false, func(get func(string) *bbolt.Bucket) error { return flip(get("meta"), []byte("header"), 40) }},
		{"store key edited", "meta", false, func(get func(string) *bbolt.Bucket) error { return flip(get("meta"), []byte("key"), 40) }},
		{"canary edited", "meta", false, func(get func(string) *bbolt.Bucket) error { return flip(get("meta"), []byte("canary"), 40) }},
		{"store id edited", "", false, func(get func(string) *bbolt.Bucket) error { return flip(get("meta"), []byte("id"), 4) }},
		{"subject dropped whole", "subjects", false, func(get func(string) *bbolt.Bucket) error {
			return errors.Join(get("subjects").Delete(idB), get("subject_keys").Delete(idB), get("templates").Delete(append(bytes.Clone(idB), 0, 0)))
		}},
		{"subject record dropped", "templates", false, func(get func(string) *bbolt.Bucket) error { return get("subjects").Delete(idA) }},
		{"subject key dropped", "subject_keys", false, func(get func(string) *bbolt.Bucket) error { return get("subject_keys").Delete(idA) }},
		{"subject keys swapped", "subject_keys", false, func(get func(string) *bbolt.Bucket) error { return swap(get("subject_keys"), idA, idB) }},
		{"templates swapped", "templates", false, func(get func(string) *bbolt.Bucket) error {
			return swap(get("templates"), append(bytes.Clone(idA), 0, 0), append(bytes.Clone(idA), 0, 1))
		}},
		{"template dropped", "templates", false, func(get func(string) *bbolt.Bucket) error {
			return get("templates").Delete(append(bytes.Clone(idA), 0, 0))
		}},
		{"template edited", "templates", false, func(get func(string) *bbolt.Bucket) error {
			return flip(get("templates"), append(bytes.Clone(idA), 0, 1), 60)
		}},
		{"outbox record dropped", "outbox", true, func(get func(string) *bbolt.Bucket) error { return get("outbox").Delete(key(2)) }},
		{"outbox record edited", "outbox", true, func(get func(string) *bbolt.Bucket) error { return flip(get("outbox"), key(2), 20) }},
		{"outbox records swapped", "outbox", true, func(get func(string) *bbolt.Bucket) error { return swap(get("outbox"), key(2), key(3)) }},
		{"outbox index dropped", "outbox", true, func(get func(string) *bbolt.Bucket) error {
			return get("outbox_index").Delete(append([]byte("event\x00"), key(2)...))
		}},
		{"command dropped", "commands", true, func(get func(string) *bbolt.Bucket) error {
			k, _ := get("commands").Cursor().First()
			return get("commands").Delete(bytes.Clone(k))
		}},
		{"command edited", "commands", true, func(get func(string) *bbolt.Bucket) error {
			k, _ := get("commands").Cursor().First()
			return flip(get("commands"), bytes.Clone(k), 50)
		}},
		{"setting put back", "settings", false, func(get func(string) *bbolt.Bucket) error {
			return get("settings").Put([]byte("lockout/face"), stale)
		}},
		{"setting dropped", "settings", false, func(get func(string) *bbolt.Bucket) error {
			return get("settings").Delete([]byte("lockout/face"))
		}},
		{"bucket dropped", "", false, func(get func(string) *bbolt.Bucket) error { return get("meta").Tx().DeleteBucket([]byte("commands")) }},
		{"bucket in a bucket", "outbox", true, func(get func(string) *bbolt.Bucket) error {
			_, err := get("outbox").CreateBucket([]byte("x"))
			return err
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "altered.db")
			copyFile(t, opts.Path, path)
			mutate(t, path, func(btx *bbolt.Tx) error {
				return c.do(func(name string) *bbolt.Bucket { return btx.Bucket([]byte(name)) })
			})
			checkNames(t, path, opts.Keyring, c.bucket)
			s, err := store.Open(store.Options{Path: path, Keyring: opts.Keyring})
			if err == nil {
				s.Close()
			}
			if !c.opens && err == nil {
				t.Error("the altered store opens")
			}
			if err != nil && !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrKeyring) {
				t.Errorf("Open gives %v", err)
			}
		})
	}
}

// TestLostSegmentKeyIsNotReplaced: a new key would hide that the old is gone.
func TestLostSegmentKeyIsNotReplaced(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	appendEvents(t, s, 3)
	queue(t, s, "event", "x")
	s.Close()
	lost := store.Options{Path: filepath.Join(t.TempDir(), "lost.db"), Keyring: opts.Keyring}
	copyFile(t, opts.Path, lost.Path)
	mutate(t, lost.Path, func(btx *bbolt.Tx) error {
		return errors.Join(btx.Bucket([]byte("audit_keys")).Delete(key(0)), btx.Bucket([]byte("outbox_keys")).Delete(key(0)))
	})
	s, err := store.Open(lost)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := s.Generation()
	for name, do := range map[string]func(tx *store.Tx) error{
		"audit":  func(tx *store.Tx) error { _, err := tx.AppendAudit(store.AuditEvent{Type: "x"}); return err },
		"outbox": func(tx *store.Tx) error { _, err := tx.AppendOutbox("event", nil); return err },
		"ignored error": func(tx *store.Tx) error {
			tx.AppendAudit(store.AuditEvent{Type: "x"})
			return nil
		},
	} {
		if err := s.Update(context.Background(), do); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Generation() != before {
		t.Error("something was kept")
	}
}

// checkNames expects Check to report a problem of the bucket with a remedy.
func checkNames(t *testing.T, path string, keyring *secure.Keyring, bucket string) {
	t.Helper()
	report, err := store.Check(path, keyring)
	if errors.Is(err, store.ErrKeyring) && bucket == "" {
		return // nothing in the file says that these are its keys
	}
	if err != nil {
		t.Fatalf("check gives no report: %v", err)
	}
	for _, p := range report.Problems {
		if p.Remedy == "" || p.Problem == "" {
			t.Errorf("problem without words: %+v", p)
		}
		if p.Bucket == bucket {
			return
		}
	}
	t.Errorf("no problem in bucket %q is reported: %+v", bucket, report.Problems)
}

func swap(b *bbolt.Bucket, x, y []byte) error {
	vx, vy := bytes.Clone(b.Get(x)), bytes.Clone(b.Get(y))
	return errors.Join(b.Put(x, vy), b.Put(y, vx))
}

func flip(b *bbolt.Bucket, k []byte, at int) error {
	v := bytes.Clone(b.Get(k))
	v[at] ^= 0x10
	return b.Put(k, v)
}

func queue(t testing.TB, s *store.Store, class string, payload string) uint64 {
	t.Helper()
	var id uint64
	update(t, s, func(tx *store.Tx) (err error) { id, err = tx.AppendOutbox(class, []byte(payload)); return err })
	return id
}

// contents renders the outbox: class and payload, or the gap, of each record.
func contents(t testing.TB, s *store.Store) string {
	t.Helper()
	var out []string
	for after := uint64(0); ; {
		recs, err := s.OutboxNext(after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			return strings.Join(out, " ")
		}
		for _, r := range recs {
			after = r.ID
			if r.Gap != nil {
				out = append(out, fmt.Sprintf("%d:%s:gap(%d,%d-%d,%s)", r.ID, r.Class, r.Gap.Count, r.Gap.From, r.Gap.To, r.Gap.Reason))
				continue
			}
			out = append(out, fmt.Sprintf("%d:%s:%s", r.ID, r.Class, r.Payload))
		}
	}
}

func TestOutboxDropsTheOldestOfTheLowestClass(t *testing.T) {
	type add struct{ class, payload string }
	tel, dec := func(p string) add { return add{"telemetry", p} }, func(p string) add { return add{"decision", p} }
	cases := []struct {
		name    string
		limits  store.OutboxLimits
		adds    []add
		want    string
		dropped uint64
	}{
		{"within limits", store.OutboxLimits{MaxRecords: 3}, []add{tel("a"), dec("b"), tel("c")},
			"1:telemetry:a 2:decision:b 3:telemetry:c", 0},
		{"lowest class first", store.OutboxLimits{MaxRecords: 3}, []add{dec("a"), tel("b"), dec("c"), dec("d")},
			"1:decision:a 2:telemetry:gap(1,2-2,full) 3:decision:c 4:decision:d", 1},
		{"gaps grow", store.OutboxLimits{MaxRecords: 2}, []add{tel("a"), tel("b"), tel("c"), tel("d")},
			"2:telemetry:gap(2,1-2,full) 3:telemetry:c 4:telemetry:d", 2},
		{"the new one itself", store.OutboxLimits{MaxRecords: 2}, []add{dec("a"), dec("b"), tel("c")},
			"1:decision:a 2:decision:b 3:telemetry:gap(1,3-3,full)", 1},
		{"a gap for each class", store.OutboxLimits{MaxRecords: 1}, []add{tel("a"), dec("b"), dec("c")},
			"1:telemetry:gap(1,1-1,full) 2:decision:gap(1,2-2,full) 3:decision:c", 2},
		{"bytes", store.OutboxLimits{MaxBytes: 5000}, []add{tel(strings.Repeat("x", 3000)), tel("b"), dec(strings.Repeat("y", 2500))},
			"1:telemetry:gap(1,1-1,full) 2:telemetry:b 3:decision:" + strings.Repeat("y", 2500), 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			opts := store.Options{Outbox: c.limits, Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
			s := storetest.Open(t, opts)
			for _, a := range c.adds {
				queue(t, s, a.class, a.payload)
			}
			if got := contents(t, s); got != c.want {
				t.Errorf("outbox holds %s, want %s", got, c.want)
			}
			if stats := s.OutboxStats(); stats.Dropped != c.dropped || stats.LastID != uint64(len(c.adds)) {
				t.Errorf("stats are %+v", stats)
			}
			s.Close()
			if got := contents(t, storetest.Open(t, opts)); got != c.want {
				t.Errorf("after reopening the outbox holds %s", got)
			}
		})
	}
}

func TestOutboxAges(t *testing.T) {
	now := time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC) // the clock is not set yet
	s := storetest.Open(t, store.Options{Now: func() time.Time { return now }, Outbox: store.OutboxLimits{MaxAge: time.Hour}})
	queue(t, s, "telemetry", "early")
	now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	queue(t, s, "decision", "a")
	queue(t, s, "decision", "b")
	now = now.Add(50 * time.Minute)
	queue(t, s, "decision", "c")
	now = now.Add(20 * time.Minute)
	queue(t, s, "decision", "d")
	want := "1:telemetry:early 3:decision:gap(2,2-3,age) 4:decision:c 5:decision:d"
	if got := contents(t, s); got != want {
		t.Errorf("outbox holds %s, want %s", got, want)
	}
}

func TestOutboxDeliversAndForgets(t *testing.T) {
	s := storetest.Open(t, store.Options{Outbox: store.OutboxLimits{MaxRecords: 2 * store.SegmentRecords}})
	select {
	case <-s.OutboxChanged():
		t.Error("woken before anything was appended")
	default:
	}
	const total = store.SegmentRecords + 5
	update(t, s, func(tx *store.Tx) error {
		for i := range total {
			if _, err := tx.AppendOutbox("event", fmt.Append(nil, i)); err != nil {
				return err
			}
		}
		return nil
	})
	<-s.OutboxChanged()
	for {
		recs, err := s.OutboxNext(0, 500)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		ids := []uint64{999_999} // one that is not there is skipped
		for _, r := range recs {
			ids = append(ids, r.ID)
		}
		if err := s.OutboxDelete(ids...); err != nil {
			t.Fatal(err)
		}
	}
	if stats := s.OutboxStats(); stats.Records != 0 || stats.Bytes != 0 || stats.LastID != total {
		t.Errorf("stats are %+v", stats)
	}
	if s.RawRecord("outbox_keys", hex.EncodeToString(key(0))) != nil {
		t.Error("the key of a delivered segment is still there")
	}
	if id := queue(t, s, "event", "next"); id != total+1 {
		t.Errorf("next id is %d", id)
	}
	select {
	case <-s.OutboxChanged():
	default:
		t.Error("not woken by the next record")
	}
}

func TestDamagedOutboxRecordCanBeRemoved(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	for i := range 3 {
		queue(t, s, "event", fmt.Sprint(i))
	}
	s.Close()
	mutate(t, opts.Path, func(btx *bbolt.Tx) error { return flip(btx.Bucket([]byte("outbox")), key(2), 20) })
	s = storetest.Open(t, opts)
	recs, err := s.OutboxNext(0, 10)
	if err != nil || len(recs) != 1 {
		t.Fatalf("got %v, %v; want the record before the damaged one", recs, err)
	}
	_, err = s.OutboxNext(1, 10)
	var damaged *store.RecordError
	if !errors.As(err, &damaged) || damaged.Bucket != "outbox" || damaged.Key != "2" {
		t.Fatalf("got %v", err)
	}
	if err := s.OutboxDelete(2); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s); got != "1:event:0 3:event:2" {
		t.Errorf("outbox holds %s", got)
	}
}

func TestCommandsAreRecordedOnce(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := storetest.Open(t, store.Options{Now: func() time.Time { return now }, CommandLimit: 3})
	record := func(id string, ttl time.Duration) error {
		return s.Update(context.Background(), func(tx *store.Tx) error { return tx.RecordCommand(id, now.Add(ttl), []byte("result of "+id)) })
	}
	recorded := func(id string) bool {
		var found bool
		view(t, s, func(tx *store.Tx) error {
			result, ok, err := tx.Command(id)
			if found = ok; ok && string(result) != "result of "+id {
				t.Errorf("result is %q", result)
			}
			return err
		})
		return found
	}
	for i, id := range []string{"a", "b", "c"} {
		if err := record(id, time.Duration(i+1)*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := record("a", time.Hour); !errors.Is(err, store.ErrExists) {
		t.Errorf("repeat: %v", err)
	}
	if err := record("d", time.Hour); !errors.Is(err, store.ErrLimit) {
		t.Errorf("full: %v", err)
	}
	now = now.Add(24 * time.Hour) // expired, but within the margin
	if err := record("d", time.Hour); !errors.Is(err, store.ErrLimit) {
		t.Errorf("within the margin: %v", err)
	}
	now = now.Add(time.Hour + time.Second) // a is beyond it
	if err := record("d", time.Hour); err != nil {
		t.Errorf("after the margin: %v", err)
	}
	for id, want := range map[string]bool{"a": false, "b": true, "c": true, "d": true, "e": false} {
		if recorded(id) != want {
			t.Errorf("command %s: recorded is %v, want %v", id, !want, want)
		}
	}
	for name, err := range map[string]error{"no id": record("", time.Hour), "far expiry": record("z", 20*365*24*time.Hour)} {
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	opts := store.Options{Path: filepath.Join(t.TempDir(), "v.db"), Keyring: storetest.Keyring(t)}
	s := storetest.Open(t, opts)
	put := func(name string, value []byte) error {
		return s.Update(context.Background(), func(tx *store.Tx) error { return tx.Put(name, value) })
	}
	for i := range 256 {
		if err := put(fmt.Sprint("session/", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("one-more", []byte("x")); !errors.Is(err, store.ErrLimit) {
		t.Errorf("too many: %v", err)
	}
	if err := put("session/0", []byte("again")); err != nil {
		t.Errorf("replacing: %v", err)
	}
	if err := put("session/1", nil); err != nil {
		t.Errorf("deleting: %v", err)
	}
	if err := put("session/2", []byte{}); err != nil {
		t.Errorf("empty: %v", err)
	}
	s.Close()
	s = storetest.Open(t, opts)
	view(t, s, func(tx *store.Tx) error {
		if v, err := tx.Get("session/0"); err != nil || string(v) != "again" {
			t.Errorf("got %q, %v", v, err)
		}
		if _, err := tx.Get("session/1"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleted setting: %v", err)
		}
		if v, err := tx.Get("session/2"); err != nil || len(v) != 0 {
			t.Errorf("empty setting: %q, %v", v, err)
		}
		return nil
	})
}
