package session

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"vigil/sensors"
)

// Writer writes a session. Finish ends it; a file without it reads as cut off.
type Writer struct {
	out    *bufio.Writer
	seal   *sealer
	first  time.Time
	frames uint64
	plain  []byte // the latest frame: overwritten by the next, wiped by Finish
	sealed []byte
}

// NewWriter begins a session on out. The id and the key are made here; Created, Expires and Consent must be set. Errors:
// ErrNoConsent, ErrExpired, those of the keeper and of out.
func NewWriter(out io.Writer, h Header, k Keeper) (*Writer, error) {
	id := make([]byte, 16)
	rand.Read(id)
	h.ID = hex.EncodeToString(id)
	if err := h.check(h.Created); err != nil {
		return nil, err
	}
	key := make([]byte, keyBytes)
	defer clear(key)
	rand.Read(key)
	var err error
	if h.Key, err = k.Seal(key, h.ID); err != nil {
		return nil, fmt.Errorf("cannot keep the session's key: %w", err)
	}
	text, err := json.Marshal(&h)
	if err != nil {
		return nil, err
	}
	raw := le.AppendUint32(le.AppendUint32([]byte(magic), version), uint32(len(text)))
	raw = append(raw, text...)
	w := &Writer{out: bufio.NewWriter(out)}
	if w.seal, err = newSealer(key, raw); err != nil {
		return nil, err
	}
	_, err = w.out.Write(raw)
	return w, err
}

// Write adds a frame, which the caller holds.
func (w *Writer) Write(f *sensors.Frame) error {
	if n := len(f.Planes[0].Data) + len(f.Planes[1].Data); n > maxFrame {
		return fmt.Errorf("frame %d has %d bytes, a session takes %d", f.Seq, n, maxFrame)
	}
	if w.frames == 0 {
		w.first = f.Captured
	}
	w.plain = appendFrame(w.plain[:0], f, max(0, f.Captured.Sub(w.first)))
	w.frames++
	return w.segment()
}

func (w *Writer) segment() error {
	w.sealed = w.seal.aead.Seal(w.sealed[:0], w.seal.nonce(), w.plain, w.seal.bound[:])
	var size [4]byte
	le.PutUint32(size[:], uint32(len(w.sealed)))
	_, err := w.out.Write(size[:])
	if err == nil {
		_, err = w.out.Write(w.sealed)
	}
	return err
}

// Frames is how many were written.
func (w *Writer) Frames() uint64 { return w.frames }

// Finish writes the end and everything that is still buffered. It does not close the file.
func (w *Writer) Finish() error {
	clear(w.plain[:cap(w.plain)])
	w.plain = le.AppendUint64(append(w.plain[:0], kindEnd), w.frames)
	return errors.Join(w.segment(), w.out.Flush())
}
