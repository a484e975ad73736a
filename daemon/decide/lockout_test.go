package decide

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// noon is when every test begins.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func lockPolicy() *Policy {
	return &Policy{MaxFailures: 3, FailureWindow: time.Minute, Lockout: 5 * time.Minute}
}

// attempt is one line of a lockout script.
type attempt struct {
	at   float64 // seconds after noon
	what string  // fail, fail! (must lock), ok, forget, free, or locked N (until N seconds after noon)
}

func TestLockout(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []attempt
	}{
		{"three in the window", []attempt{{0, "free"}, {0, "fail"}, {10, "fail"}, {20, "free"}, {20, "fail!"}, {20, "locked 320"}, {319, "locked 320"}, {320, "free"}}},
		{"too slow", []attempt{{0, "fail"}, {30, "fail"}, {61, "fail"}, {62, "free"}, {63, "fail"}, {64, "fail!"}}},
		{"at the edge of the window", []attempt{{0, "fail"}, {1, "fail"}, {60, "fail!"}}},
		{"a success forgets", []attempt{{0, "fail"}, {1, "fail"}, {2, "ok"}, {3, "fail"}, {4, "fail"}, {5, "free"}, {6, "fail!"}}},
		{"a success does not unlock", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {1, "ok"}, {2, "locked 300"}}},
		{"a failure while locked does not unlock", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {100, "fail"}, {101, "locked 300"}}},
		{"again after the lock", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {301, "fail"}, {302, "fail"}, {303, "free"}, {303, "fail!"}, {303, "locked 603"}}},
		{"forgotten", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {1, "forget"}, {1, "free"}, {2, "fail"}, {3, "fail"}, {4, "free"}}},
		{"clock set back while locked", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {-86400, "locked -86100"}, {-86101, "locked -86100"}, {-86100, "free"}, {0, "free"}}},
		{"clock set back between failures", []attempt{{0, "fail"}, {1, "fail"}, {-3600, "fail"}, {-3600, "free"}, {-3599, "fail"}, {-3598, "fail!"}}},
		{"clock set forward while locked", []attempt{{0, "fail"}, {0, "fail"}, {0, "fail!"}, {1e6, "free"}}},
	} {
		l := NewLockouts(lockPolicy())
		for i, a := range c.script {
			now := at(a.at)
			switch {
			case strings.HasPrefix(a.what, "fail"):
				if locked := l.Failure("anna", now); locked != (a.what == "fail!") {
					t.Errorf("%s, step %d: failure locked: %v", c.name, i, locked)
				}
			case a.what == "ok":
				l.Success("anna")
			case a.what == "forget":
				l.Forget("anna")
			case a.what == "free":
				if until := l.Locked("anna", now); !until.IsZero() {
					t.Errorf("%s, step %d: locked until %v", c.name, i, until)
				}
			default:
				var want float64
				if _, err := fmt.Sscanf(a.what, "locked %g", &want); err != nil {
					t.Fatal(err)
				}
				if until := l.Locked("anna", now); !until.Equal(at(want)) {
					t.Errorf("%s, step %d: locked until %v, want %v", c.name, i, until, at(want))
				}
			}
			if !l.Locked("ben", now).IsZero() {
				t.Errorf("%s, step %d: somebody else is locked", c.name, i)
			}
		}
	}
}

func TestLockoutSwitchedOff(t *testing.T) {
	l := NewLockouts(&Policy{MaxFailures: 0, FailureWindow: time.Minute, Lockout: time.Minute})
	for range 1000 {
		if l.Failure("anna", noon) || !l.Locked("anna", noon).IsZero() {
			t.Fatal("locked although max_failures is 0")
		}
	}
	if len(l.keys) != 0 {
		t.Errorf("%d keys are watched for nothing", len(l.keys))
	}
}

func TestLockoutAfterOneFailure(t *testing.T) {
	l := NewLockouts(&Policy{MaxFailures: 1, FailureWindow: time.Minute, Lockout: time.Minute})
	if !l.Failure("anna", noon) || l.Locked("anna", noon).IsZero() {
		t.Error("one failure must lock")
	}
}

func TestLockoutIsBounded(t *testing.T) {
	l := NewLockouts(lockPolicy())
	name := func(i int) string { return fmt.Sprintf("person-%d", i) }
	for i := range MaxLocks { // all locked, the later ones longer
		for range 3 {
			l.Failure(name(i), at(float64(i)))
		}
	}
	now := at(MaxLocks)
	l.Failure("new", now)
	if len(l.keys) != MaxLocks || !l.Locked(name(0), now).IsZero() || l.Locked(name(1), now).IsZero() {
		t.Errorf("%d keys; of locked ones the one that is freed soonest must make room", len(l.keys))
	}
	l.Failure("newer", now.Add(time.Second))
	if l.keys["new"] != nil || l.Locked(name(1), now).IsZero() {
		t.Error("a key that is not locked must make room before one that is")
	}
	for i := range 10 * MaxLocks {
		l.Failure(name(1000+i), now.Add(time.Hour+time.Duration(i)*time.Second))
		if len(l.keys) > MaxLocks {
			t.Fatalf("%d keys", len(l.keys))
		}
	}
}

func TestLockoutSurvivesARestart(t *testing.T) {
	l := NewLockouts(lockPolicy())
	for range 3 {
		l.Failure("anna", noon)
	}
	l.Failure("ben", noon)
	l.Failure("ben", noon)
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	again := NewLockouts(lockPolicy())
	if err := json.Unmarshal(data, again); err != nil {
		t.Fatal(err)
	}
	if !again.Locked("anna", at(1)).Equal(at(300)) {
		t.Errorf("anna is locked until %v", again.Locked("anna", at(1)))
	}
	if !again.Failure("ben", at(2)) {
		t.Error("ben's two failures were lost")
	}
}

func TestLockoutStateFitsASetting(t *testing.T) {
	l := NewLockouts(lockPolicy())
	for i := range MaxLocks {
		for range 4 {
			l.Failure(fmt.Sprintf("%036d", i), noon) // as long as a subject's id
		}
	}
	data, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 16<<10 {
		t.Errorf("the full state takes %d bytes", len(data))
	}
}

func TestLockoutRefusesBrokenState(t *testing.T) {
	var many strings.Builder
	for i := range MaxLocks + 1 {
		fmt.Fprintf(&many, `,"p%d":{}`, i)
	}
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"empty", "{}", true},
		{"null", "null", true},
		{"a null key", `{"anna":null}`, true},
		{"a number", "5", false},
		{"a list", "[]", false},
		{"cut off", `{"anna":{"n":1`, false},
		{"wrong type", `{"anna":{"n":"1"}}`, false},
		{"negative count", `{"anna":{"n":-1000}}`, false},
		{"too many", "{" + many.String()[1:] + "}", false},
	} {
		l := NewLockouts(lockPolicy())
		l.Failure("ben", noon)
		l.Failure("ben", noon)
		err := l.UnmarshalJSON([]byte(c.text))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && !l.Failure("ben", noon) {
			t.Errorf("%s: the state from before is gone", c.name)
		}
		for attempt := 1; attempt <= 3; attempt++ {
			if locked := l.Failure("carl", noon); locked != (attempt == 3) {
				t.Errorf("%s: it does not count any more: failure %d, locked %v", c.name, attempt, locked)
			}
		}
	}
}

func TestPolicyThreshold(t *testing.T) {
	p := Policy{VerifyThreshold: 1, IdentifyThreshold: 2, DuplicateThreshold: 3}
	for op, want := range map[Operation]float32{Verify: 1, Identify: 2, Duplicate: 3, "": 2} {
		if p.Threshold(op) != want {
			t.Errorf("%q: %v, want %v", op, p.Threshold(op), want)
		}
	}
}
