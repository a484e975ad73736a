package mem

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every secret type prints as.
const Redacted = "[secret]"

// String implements fmt.Stringer.
func (Buffer) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Buffer) GoString() string { return Redacted }

// Format implements fmt.Formatter, so that no verb reaches the contents.
func (Buffer) Format(s fmt.State, _ rune) { io.WriteString(s, Redacted) }

// LogValue implements slog.LogValuer.
func (Buffer) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON implements json.Marshaler.
func (Buffer) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Buffer) MarshalText() ([]byte, error) { return []byte(Redacted), nil }
