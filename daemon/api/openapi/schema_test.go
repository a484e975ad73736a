package openapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type inner struct {
	A int `json:"a"`
}

type marshals struct{}

func (marshals) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

type text struct{}

func (text) MarshalText() ([]byte, error) { return []byte("x"), nil }

type everything struct {
	inner
	Skipped string            `json:"-"`
	NoTag   bool              //nolint:revive
	Opt     *int              `json:"opt,omitempty"`
	Null    *inner            `json:"null"`
	List    []string          `json:"list"`
	Few     []inner           `json:"few,omitempty" schema:"maxitems=3"`
	Bytes   []byte            `json:"bytes"`
	Map     map[string]uint8  `json:"map"`
	Time    time.Time         `json:"time,omitzero"`
	Raw     json.RawMessage   `json:"raw,omitempty"`
	Fixed   [4]float32        `json:"fixed"`
	Text    text              `json:"text"`
	Word    string            `json:"word,omitempty" schema:"enum=a|b" doc:"one of two"`
	Deep    map[string][]bool `json:"deep,omitempty"`
}

func schemaOf[T any](t *testing.T, strict bool) string {
	t.Helper()
	s := NewSchemas()
	if _, err := s.Of(Type[T](), strict); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(s.all)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestSchemas(t *testing.T) {
	got := schemaOf[everything](t, false)
	for _, want := range []string{
		`"a":{"type":"integer"}`, // of the embedded structure
		`"NoTag":{"type":"boolean"}`,
		`"opt":{"type":"integer"}`,
		`"null":{"anyOf":[{"$ref":"#/components/schemas/inner"},{"type":"null"}]}`,
		`"list":{"type":["array","null"],"items":{"type":"string"}}`,
		`"few":{"type":"array","maxItems":3,"items":{"$ref":"#/components/schemas/inner"}}`,
		`"bytes":{"type":["string","null"],"contentEncoding":"base64"}`,
		`"map":{"type":["object","null"],"additionalProperties":{"type":"integer","minimum":0}}`,
		`"time":{"type":"string","format":"date-time"}`,
		`"raw":{}`,
		`"fixed":{"type":"array","minItems":4,"maxItems":4,"items":{"type":"number"}}`,
		`"text":{"type":"string"}`,
		`"word":{"type":"string","description":"one of two","enum":["a","b"]}`,
		`"required":["NoTag","a","bytes","fixed","list","map","null","text"]`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "Skipped") {
		t.Error("a field that is never written is there")
	}
	strict := schemaOf[everything](t, true)
	for _, want := range []string{
		`"additionalProperties":false`, `"list":{"type":"array"`, `"enum":["a","b",null]`, `"opt":{"type":["integer","null"]}`,
	} {
		if !strings.Contains(strict, want) {
			t.Errorf("strict: no %s in %s", want, strict)
		}
	}
}

func TestWhatHasNoSchema(t *testing.T) {
	s := NewSchemas()
	for name, err := range map[string]error{
		"JSON of its own": errOf(s.Of(Type[marshals](), false)),
		"has no JSON":     errOf(s.Of(Type[struct{ F func() }](), false)),
		"unknown hint": errOf(s.Of(Type[struct {
			F string `schema:"size=1"`
		}](), false)),
		"is no number": errOf(s.Of(Type[struct {
			F string `schema:"min=x"`
		}](), false)),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func errOf(_ *Schema, err error) error { return err }

func TestTypesOfOneNameAreKeptApart(t *testing.T) {
	type inner struct{ B bool }
	s := NewSchemas()
	one, err := s.Of(Type[everything](), false)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Of(Type[inner](), false)
	if err != nil || two.Ref == one.Ref || two.Ref != "#/components/schemas/Openapiinner" {
		t.Errorf("%v, %v, %v", one, two, err)
	}
}
