package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"vigil/sensors"
)

// Errors that callers match.
var (
	// ErrFormat: the file is no session of this version, or was changed.
	ErrFormat = errors.New("not a recorded session that this version reads")
	// ErrExpired: the time for which the person consented is over. The file must be deleted.
	ErrExpired = errors.New("the recorded session has expired: delete it")
	// ErrNoConsent: nobody is named who consented.
	ErrNoConsent = errors.New("a session needs a consent: say who agreed to be recorded, and to what")
)

const (
	magic        = "VIGILSES"
	version      = 1
	keyBytes     = 32
	maxHeader    = 64 << 10
	maxFrame     = 64 << 20 // bytes of a frame's planes
	frameHeader  = 57
	gcmTag       = 16
	kindEnd      = 0
	kindFrame    = 1
	maxExpiry    = 366 * 24 * time.Hour
	maxStatement = 1000 // bytes of Consent
)

var le = binary.LittleEndian

// Header describes a session. It is not secret.
type Header struct {
	ID       string    `json:"id"` // the key is bound to it
	Sensor   string    `json:"sensor"`
	Driver   string    `json:"driver"`
	Modality string    `json:"modality"`
	DPI      float64   `json:"dpi,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"` // at most 366 days after Created
	Consent  string    `json:"consent"` // who agreed to what, in words
	Key      []byte    `json:"key"`     // of the session, as Keeper.Seal gave it
}

func (h *Header) check(now time.Time) error {
	switch {
	case h.ID == "" || h.Sensor == "":
		return fmt.Errorf("%w: it has no id or no sensor", ErrFormat)
	case strings.TrimSpace(h.Consent) == "":
		return ErrNoConsent
	case len(h.Consent) > maxStatement:
		return fmt.Errorf("%w: a consent of %d bytes, at most %d", ErrFormat, len(h.Consent), maxStatement)
	case !h.Expires.After(h.Created) || h.Expires.Sub(h.Created) > maxExpiry:
		return fmt.Errorf("%w: it expires %s after it was made: above 0, at most %s", ErrFormat, h.Expires.Sub(h.Created), maxExpiry)
	case !now.Before(h.Expires):
		return fmt.Errorf("%w (on %s)", ErrExpired, h.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Keeper keeps the key of a session: what Seal makes can be opened by whoever may play the session, for that id only.
type Keeper interface {
	Seal(key []byte, id string) ([]byte, error)
	Open(sealed []byte, id string) ([]byte, error)
}

// sealer encrypts or decrypts the segments of one file in their order.
type sealer struct {
	aead   cipher.AEAD
	bound  [sha256.Size]byte
	number uint64
}

func newSealer(key, preamble []byte) (*sealer, error) {
	if len(key) != keyBytes {
		return nil, fmt.Errorf("%w: its key has %d bytes", ErrFormat, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead: aead, bound: sha256.Sum256(preamble)}, err
}

func (s *sealer) nonce() []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint64(n[4:], s.number)
	s.number++
	return n
}

// appendFrame writes a frame's plaintext.
func appendFrame(b []byte, f *sensors.Frame, since time.Duration) []byte {
	b = append(b, kindFrame)
	b = le.AppendUint64(b, f.Seq)
	b = le.AppendUint64(b, uint64(f.Captured.UnixNano()))
	b = le.AppendUint64(b, uint64(since))
	flags := uint32(0)
	if f.FullRange {
		flags = 1
	}
	for _, v := range []uint32{uint32(f.Width), uint32(f.Height), uint32(f.Format), flags} {
		b = le.AppendUint32(b, v)
	}
	for i := range f.Planes {
		b = le.AppendUint32(b, uint32(f.Planes[i].StrideBytes))
		b = le.AppendUint32(b, uint32(len(f.Planes[i].Data)))
	}
	for i := range f.Planes {
		b = append(b, f.Planes[i].Data...)
	}
	return b
}

// recorded is what a frame's plaintext says.
type recorded struct {
	seq           uint64
	captured      time.Time
	since         time.Duration
	width, height int
	format        sensors.Format
	fullRange     bool
	planes        [2]sensors.Plane // into the plaintext
}

func parseFrame(b []byte) (r recorded, err error) {
	if len(b) < frameHeader {
		return r, fmt.Errorf("%w: a frame of %d bytes", ErrFormat, len(b))
	}
	r.seq, r.captured, r.since = le.Uint64(b[1:]), time.Unix(0, int64(le.Uint64(b[9:]))), time.Duration(le.Uint64(b[17:]))
	r.width, r.height, r.format = int(le.Uint32(b[25:])), int(le.Uint32(b[29:])), sensors.Format(le.Uint32(b[33:]))
	r.fullRange = le.Uint32(b[37:])&1 != 0
	rest := b[frameHeader:]
	for i := range r.planes {
		stride, n := int(le.Uint32(b[41+8*i:])), int(le.Uint32(b[45+8*i:]))
		if n > len(rest) {
			return r, fmt.Errorf("%w: a plane of %d bytes in %d", ErrFormat, n, len(rest))
		}
		r.planes[i] = sensors.Plane{Data: rest[:n:n], StrideBytes: stride}
		rest = rest[n:]
	}
	if len(rest) > 0 || r.since < 0 || r.width > 1<<16 || r.height > 1<<16 || r.format < sensors.Gray8 || r.format > sensors.MJPEG || !r.fits() {
		return r, fmt.Errorf("%w: a frame of %d x %d %v, %d bytes too many", ErrFormat, r.width, r.height, r.format, len(rest))
	}
	return r, nil
}

// fits reports whether the planes hold the picture, so that whoever reads it may trust its size.
func (r *recorded) fits() bool {
	row := map[sensors.Format]int{sensors.Gray8: 1, sensors.NV12: 1, sensors.YUYV: 2, sensors.RGB24: 3}[r.format] * r.width
	holds := func(p sensors.Plane, row, rows int) bool {
		return rows == 0 || p.StrideBytes >= row && p.StrideBytes <= 1<<20 && len(p.Data) >= (rows-1)*p.StrideBytes+row
	}
	switch r.format {
	case sensors.MJPEG:
		return true
	case sensors.NV12:
		return holds(r.planes[0], row, r.height) && holds(r.planes[1], row, r.height/2)
	}
	return holds(r.planes[0], row, r.height)
}

// readHeader reads all before the first segment and returns it raw too.
func readHeader(in io.Reader) (h Header, raw []byte, err error) {
	raw = make([]byte, len(magic)+8)
	if _, err := io.ReadFull(in, raw); err != nil || string(raw[:len(magic)]) != magic {
		return h, nil, ErrFormat
	}
	if v := le.Uint32(raw[8:]); v != version {
		return h, nil, fmt.Errorf("%w: version %d, this program reads %d", ErrFormat, v, version)
	}
	n := le.Uint32(raw[12:])
	if n > maxHeader {
		return h, nil, fmt.Errorf("%w: a header of %d bytes, at most %d", ErrFormat, n, maxHeader)
	}
	raw = append(raw, make([]byte, n)...)
	if _, err := io.ReadFull(in, raw[16:]); err != nil {
		return h, nil, fmt.Errorf("%w: the header is cut off", ErrFormat)
	}
	if err := json.Unmarshal(raw[16:], &h); err != nil {
		return h, nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	return h, raw, nil
}
