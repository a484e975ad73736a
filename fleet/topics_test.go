package fleet

import (
	"errors"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "gate-7": true, "0a1b": true, "A.b_c-d": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "+": false, "#": false, "a/b": false, "a+": false, "a#": false,
		"a\x00": false, "a b": false, "ä": false, "-a": false, ".a": false, "_a": false, "$SYS": false, "a\n": false,
	} {
		err := ValidateName(name)
		if (err == nil) != ok || (err != nil && !errors.Is(err, ErrName)) {
			t.Errorf("ValidateName(%q) = %v", name, err)
		}
	}
}

func TestTopics(t *testing.T) {
	if _, err := NewTopics("acme", "management"); !errors.Is(err, ErrName) {
		t.Errorf("the management name is free for devices: %v", err)
	}
	if _, err := NewTopics("a/b", "c"); !errors.Is(err, ErrName) {
		t.Errorf("tenant a/b: %v", err)
	}
	topics, err := NewTopics("acme", "gate-7")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		topics.Birth():                "vigil/1/acme/gate-7/up/birth",
		topics.State():                "vigil/1/acme/gate-7/up/state",
		topics.ForClass("decision"):   "vigil/1/acme/gate-7/up/event",
		topics.ForClass(ClassResult):  "vigil/1/acme/gate-7/up/result",
		topics.ForClass(ClassGap):     "vigil/1/acme/gate-7/up/gap",
		topics.Command():              "vigil/1/acme/gate-7/down/command",
		topics.ClientID():             "acme/gate-7",
		topics.Tenant()[:1] + "+rest": "a+rest",
	} {
		if got != want {
			t.Errorf("topic %q, want %q", got, want)
		}
	}
}

func TestParseUp(t *testing.T) {
	for topic, leaf := range map[string]string{
		"vigil/1/acme/gate-7/up/event":        "event",
		"vigil/1/acme/gate-7/up/gap":          "gap",
		"vigil/1/acme/gate-7/down/command":    "",
		"vigil/2/acme/gate-7/up/event":        "",
		"vigil/1/acme/gate-7/up/event/x":      "",
		"vigil/1/acme/+/up/event":             "",
		"vigil/1/acme/management/up/event":    "",
		"vigil/1/acme/gate-7/up/other":        "",
		"":                                    "",
		"/////":                               "",
		"xvigil/1/acme/gate-7/up/event":       "",
		"vigil/1/acme/gate-7/up/":             "",
		"vigil/1/" + "acme/gate-7/up/birth\n": "",
	} {
		got, l, err := ParseUp(topic)
		if l != leaf || (err == nil) != (leaf != "") {
			t.Errorf("ParseUp(%q) = %q, %v", topic, l, err)
		}
		if err == nil && (got.Tenant() != "acme" || got.Device() != "gate-7") {
			t.Errorf("ParseUp(%q) names %s", topic, got.ClientID())
		}
	}
}
