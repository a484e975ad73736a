package openapi

import (
	"encoding"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schemas collects the schemas of named structures; others refer to them.
type Schemas struct {
	all   map[string]*Schema
	names map[reflect.Type]string
}

// NewSchemas is an empty collection.
func NewSchemas() *Schemas {
	return &Schemas{all: map[string]*Schema{}, names: map[reflect.Type]string{}}
}

// Type is the reflect.Type of T, for tables.
func Type[T any]() reflect.Type { return reflect.TypeFor[T]() }

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
	jsonType = reflect.TypeFor[json.Marshaler]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

// Of is the schema of a type's JSON. A strict one allows no properties beside those of the type, as a decoder that refuses
// unknown fields does.
func (s *Schemas) Of(t reflect.Type, strict bool) (*Schema, error) {
	switch {
	case t == timeType:
		return &Schema{Type: "string", Format: "date-time"}, nil
	case t == rawType || t.Kind() == reflect.Interface:
		return &Schema{}, nil
	case t.Implements(jsonType):
		return nil, fmt.Errorf("type %v makes JSON of its own, which nobody can see from outside", t)
	case t.Implements(textType):
		return &Schema{Type: "string"}, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return &Schema{Type: "boolean"}, nil
	case reflect.String:
		return &Schema{Type: "string"}, nil
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: "number"}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &Schema{Type: "integer"}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &Schema{Type: "integer", Minimum: number(0)}, nil
	case reflect.Pointer:
		inner, err := s.Of(t.Elem(), strict)
		return orNull(inner), err
	case reflect.Slice, reflect.Array:
		return s.list(t, strict)
	case reflect.Map:
		inner, err := s.Of(t.Elem(), strict)
		return &Schema{Type: []string{"object", "null"}, Additional: inner}, err
	case reflect.Struct:
		return s.structure(t, strict)
	}
	return nil, fmt.Errorf("type %v has no JSON", t)
}

func number(v float64) *float64 { return &v }

// orNull is a schema that allows null as well.
func orNull(s *Schema) *Schema {
	if s == nil {
		return nil
	}
	if name, ok := s.Type.(string); ok {
		c := *s
		c.Type = []string{name, "null"}
		if len(c.Enum) > 0 {
			c.Enum = append(slices.Clone(c.Enum), nil)
		}
		return &c
	}
	if s.Ref == "" {
		return s
	}
	return &Schema{AnyOf: []*Schema{s, {Type: "null"}}}
}

// notNull takes back what orNull allowed: a field with omitempty is left out instead.
func notNull(s *Schema) *Schema {
	if names, ok := s.Type.([]string); ok {
		c := *s
		c.Type = names[0]
		return &c
	}
	if len(s.AnyOf) > 0 {
		return s.AnyOf[0]
	}
	return s
}

func (s *Schemas) list(t reflect.Type, strict bool) (*Schema, error) {
	if t.Elem().Kind() == reflect.Uint8 && t.Kind() == reflect.Slice {
		return &Schema{Type: []string{"string", "null"}, ContentEncoding: "base64"}, nil
	}
	inner, err := s.Of(t.Elem(), strict)
	if err != nil {
		return nil, err
	}
	if t.Kind() == reflect.Array {
		n := t.Len()
		return &Schema{Type: "array", Items: inner, MinItems: &n, MaxItems: &n}, nil
	}
	return &Schema{Type: []string{"array", "null"}, Items: inner}, nil
}

// structure is the schema of a structure, by reference where it has a name.
func (s *Schemas) structure(t reflect.Type, strict bool) (*Schema, error) {
	if t.Name() == "" {
		return s.fields(t, strict)
	}
	name, ok := s.names[t]
	if !ok {
		if name = t.Name(); s.all[name] != nil { // another room has a type of that name
			pkg := path.Base(t.PkgPath())
			name = strings.ToUpper(pkg[:1]) + pkg[1:] + name
		}
		s.names[t], s.all[name] = name, &Schema{}
		made, err := s.fields(t, strict)
		if err != nil {
			return nil, err
		}
		*s.all[name] = *made
	}
	return &Schema{Ref: "#/components/schemas/" + name}, nil
}

func (s *Schemas) fields(t reflect.Type, strict bool) (*Schema, error) {
	out := &Schema{Type: "object", Properties: map[string]*Schema{}}
	if strict {
		out.Additional = false
	}
	if err := s.addFields(out, t, strict); err != nil {
		return nil, err
	}
	slices.Sort(out.Required)
	return out, nil
}

func (s *Schemas) addFields(out *Schema, t reflect.Type, strict bool) error {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-" || !f.IsExported() && !f.Anonymous:
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			if err := s.addFields(out, f.Type, strict); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		p, err := s.Of(f.Type, strict)
		if err != nil {
			return fmt.Errorf("%v.%s: %w", t, f.Name, err)
		}
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if optional || strict {
			p = notNull(p)
		}
		if !optional {
			out.Required = append(out.Required, name)
		}
		if p, err = hint(p, f.Tag.Get("schema")); err != nil {
			return fmt.Errorf("%v.%s: %w", t, f.Name, err)
		}
		if optional && strict { // encoding/json takes null for a field that is left out
			p = orNull(p)
		}
		if text := f.Tag.Get("doc"); text != "" {
			c := *p
			c.Description = text
			p = &c
		}
		out.Properties[name] = p
	}
	return nil
}

// hint narrows a schema by the tag `schema:"min=1,max=16,minlen=1,maxlen=200,maxitems=16,enum=a|b,pattern=^x$"`; the pattern
// stands last, for it may hold commas.
func hint(s *Schema, tag string) (*Schema, error) {
	if tag == "" {
		return s, nil
	}
	c := *s
	for tag != "" {
		key, rest, _ := strings.Cut(tag, "=")
		value := rest
		if key != "pattern" {
			value, rest, _ = strings.Cut(rest, ",")
		} else {
			rest = ""
		}
		tag = rest
		n, err := strconv.ParseFloat(value, 64)
		whole := int(n)
		switch key {
		case "enum":
			for v := range strings.SplitSeq(value, "|") {
				c.Enum = append(c.Enum, v)
			}
			err = nil
		case "pattern":
			c.Pattern, err = value, nil
		case "min":
			c.Minimum = &n
		case "above":
			c.ExclusiveMinimum = &n
		case "max":
			c.Maximum = &n
		case "minlen":
			c.MinLength = &whole
		case "maxlen":
			c.MaxLength = &whole
		case "minitems":
			c.MinItems = &whole
		case "maxitems":
			c.MaxItems = &whole
		default:
			return nil, fmt.Errorf("unknown hint %q in the tag schema", key)
		}
		if err != nil {
			return nil, fmt.Errorf("hint %s: %q is no number", key, value)
		}
	}
	return &c, nil
}
