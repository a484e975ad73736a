// Package openapi writes an OpenAPI 3.1 document from a table of operations and the Go types of their bodies.
//
// Promises: the schema of a type says what encoding/json makes of it: embedded structures are flattened, what may be left out
// is not required, a nil slice or map may be null. The same table gives the same bytes. A type whose JSON cannot be told by
// looking at it (a json.Marshaler that is not known here) is an error, not a guess.
//
// It knows nothing of HTTP servers, owns nothing and blocks on nothing.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// Info heads a document.
type Info struct {
	Title, Version, Text string
}

// Operation is one method of one path.
type Operation struct {
	ID           string
	Method, Path string // path with {name}
	Summary      string
	Text         string
	Tag          string
	Scope        string // least scope, shown as x-vigil-scope
	Params       []Param
	Bodies       []Body // that are accepted; none: no body is read
	Answers      []Answer
}

// Places of a Param.
const (
	Query  = "query"
	Path   = "path"
	Header = "header"
)

// Param is a parameter of the query, the path or the header.
type Param struct {
	Name     string
	In       string
	Text     string
	Schema   Schema
	Required bool // those of a path always are
}

// Body is a body of one content type: JSON of a Go type, or whatever Schema says.
type Body struct {
	Type   string // "application/json"
	Of     reflect.Type
	Schema *Schema
}

// Answer is what comes back with one status.
type Answer struct {
	Status  int
	Text    string
	Bodies  []Body
	Headers map[string]string // names and what they say
}

// Schema is a JSON schema, as far as it is used here.
type Schema struct {
	Ref              string             `json:"$ref,omitempty"`
	Type             any                `json:"type,omitempty"` // a name, or a list of names
	Description      string             `json:"description,omitempty"`
	Format           string             `json:"format,omitempty"`
	ContentEncoding  string             `json:"contentEncoding,omitempty"`
	Pattern          string             `json:"pattern,omitempty"`
	Enum             []any              `json:"enum,omitempty"`
	Const            any                `json:"const,omitempty"`
	Default          any                `json:"default,omitempty"`
	Minimum          *float64           `json:"minimum,omitempty"`
	Maximum          *float64           `json:"maximum,omitempty"`
	ExclusiveMinimum *float64           `json:"exclusiveMinimum,omitempty"`
	MinLength        *int               `json:"minLength,omitempty"`
	MaxLength        *int               `json:"maxLength,omitempty"`
	MinItems         *int               `json:"minItems,omitempty"`
	MaxItems         *int               `json:"maxItems,omitempty"`
	Items            *Schema            `json:"items,omitempty"`
	Properties       map[string]*Schema `json:"properties,omitempty"`
	Required         []string           `json:"required,omitempty"`
	Additional       any                `json:"additionalProperties,omitempty"` // false, or a *Schema
	AnyOf            []*Schema          `json:"anyOf,omitempty"`
}

// Build writes the document, indented, with a newline at its end.
func Build(info Info, list []Operation) ([]byte, error) {
	s := NewSchemas()
	paths := map[string]map[string]any{}
	for i := range list {
		op, err := s.operation(&list[i])
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", list[i].Method, list[i].Path, err)
		}
		path := list[i].Path
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(list[i].Method)] = op
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": info.Title, "version": info.Version, "description": info.Text},
		"servers": []any{map[string]any{"url": "/"}},
		"paths":   paths,
		"security": []any{
			map[string]any{"token": []string{}}, map[string]any{"certificate": []string{}},
		},
		"components": map[string]any{
			"schemas": s.all,
			"securitySchemes": map[string]any{
				"token":       map[string]any{"type": "http", "scheme": "bearer", "description": "A token made by vigild token create."},
				"certificate": map[string]any{"type": "mutualTLS", "description": "A client certificate whose name has a scope in the configuration. At the UNIX socket the user takes its place."},
			},
		},
	}
	text, err := json.MarshalIndent(doc, "", "  ")
	return append(text, '\n'), err
}

func (s *Schemas) operation(op *Operation) (map[string]any, error) {
	out := map[string]any{
		"operationId": op.ID, "summary": op.Summary, "tags": []string{op.Tag}, "x-vigil-scope": op.Scope,
	}
	if op.Text != "" {
		out["description"] = op.Text
	}
	params := []any{}
	for i := range op.Params {
		p := &op.Params[i]
		params = append(params, map[string]any{
			"name": p.Name, "in": p.In, "description": p.Text, "schema": &p.Schema, "required": p.Required || p.In == Path,
		})
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	if len(op.Bodies) > 0 {
		content, err := s.content(op.Bodies, true)
		if err != nil {
			return nil, err
		}
		out["requestBody"] = map[string]any{"required": true, "content": content}
	}
	answers := map[string]any{}
	for _, a := range op.Answers {
		r := map[string]any{"description": a.Text}
		if a.Text == "" {
			r["description"] = http.StatusText(a.Status)
		}
		if len(a.Bodies) > 0 {
			content, err := s.content(a.Bodies, false)
			if err != nil {
				return nil, err
			}
			r["content"] = content
		}
		if len(a.Headers) > 0 {
			headers := map[string]any{}
			for name, text := range a.Headers {
				headers[name] = map[string]any{"description": text, "schema": &Schema{Type: "string"}}
			}
			r["headers"] = headers
		}
		answers[strconv.Itoa(a.Status)] = r
	}
	out["responses"] = answers
	return out, nil
}

func (s *Schemas) content(list []Body, strict bool) (map[string]any, error) {
	content := map[string]any{}
	for _, b := range list {
		schema := b.Schema
		if b.Of != nil {
			var err error
			if schema, err = s.Of(b.Of, strict); err != nil {
				return nil, err
			}
		}
		media := map[string]any{}
		if schema != nil {
			media["schema"] = schema
		}
		content[b.Type] = media
	}
	return content, nil
}
