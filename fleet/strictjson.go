package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

var errJSON = errors.New("not the JSON object that was expected")

// strictObject reads one JSON object whose keys are exactly want, each once, in exactly this spelling, with nothing after
// it. encoding/json alone would take duplicate keys and keys in another case.
func strictObject(data []byte, want ...string) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: invalid UTF-8", errJSON)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, fmt.Errorf("%w: no object", errJSON)
	}
	got := make(map[string]json.RawMessage, len(want))
	for dec.More() {
		if err := readMember(dec, got, want); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: it does not end", errJSON)
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) != 0 {
		return nil, fmt.Errorf("%w: data after the object", errJSON)
	}
	if len(got) != len(want) {
		return nil, fmt.Errorf("%w: %d of %d members present", errJSON, len(got), len(want))
	}
	return got, nil
}

func readMember(dec *json.Decoder, got map[string]json.RawMessage, want []string) error {
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("%w: broken member", errJSON)
	}
	key, _ := tok.(string)
	known := false
	for _, w := range want {
		known = known || w == key
	}
	if !known {
		return fmt.Errorf("%w: unknown member", errJSON)
	}
	if _, twice := got[key]; twice {
		return fmt.Errorf("%w: member %q twice", errJSON, key)
	}
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("%w: broken member %q", errJSON, key)
	}
	got[key] = raw
	return nil
}

// member decodes one member of an object into a string or an integer; null, floats and other types are errors.
func member[T string | int64 | uint64](obj map[string]json.RawMessage, key string) (T, error) {
	var v T
	if bytes.Equal(obj[key], []byte("null")) {
		return v, fmt.Errorf("%w: member %q is null", errJSON, key)
	}
	if err := json.Unmarshal(obj[key], &v); err != nil {
		return v, fmt.Errorf("%w: member %q has the wrong type", errJSON, key)
	}
	return v, nil
}
