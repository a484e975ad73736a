package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vigil/secure"
	"vigil/secure/mem"
)

// EngineKey says what a built engine is of and for: another value of any field is another engine.
type EngineKey struct {
	Model     string `json:"model"`     // SHA-256 of the ONNX file, in hexadecimal
	Library   string `json:"library"`   // name and version, such as "TensorRT 10.3.0"
	CUDA      int    `json:"cuda"`      // version of the CUDA runtime; 0 for none
	Driver    int    `json:"driver"`    // newest CUDA version that the driver knows; 0 without one
	Compute   string `json:"compute"`   // compute capability; empty when built without a device
	Profile   string `json:"profile"`   // shapes of the inputs
	Precision string `json:"precision"` // of the file
}

// name is the file of the key's engine.
func (k EngineKey) name() (string, error) {
	text, err := json.Marshal(k)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]) + engineSuffix, nil
}

// ErrBroken means that a cached engine does not open: it was altered, cut off, or sealed by keys that are gone.
var ErrBroken = errors.New("the cached engine does not open")

const (
	engineSuffix = ".engine"
	engineMagic  = "VIGILEN1"
	engineStart  = ".tmp-"
	// engineChunk is the plaintext of one envelope: an engine is decrypted piece by piece, so that one piece of locked
	// memory is enough for any size.
	engineChunk   = 1 << 20
	maxKeyBytes   = 4 << 10
	maxEngineSize = 4 << 30
)

// Engines is a folder of built engines, sealed under the device's models key: a cache, bounded in bytes.
//
// An entry is one file: the magic; the length of the wrapped key of the entry (uint32, big-endian) and that key; the length
// of the sealed EngineKey (uint32) and that; the length of the engine (uint64); and the engine in envelopes of engineChunk
// bytes. Each envelope is bound to the entry, its number and the engine's length, so that none can be moved, left out or
// taken from another entry.
type Engines struct {
	dir   string
	ring  *secure.Keyring
	limit int64
	now   func() time.Time
}

// OpenEngines makes the folder if it is missing and removes what a crash left. limit is the bytes that all entries may take
// together; now orders them by age.
func OpenEngines(dir string, ring *secure.Keyring, limit int64, now func() time.Time) (*Engines, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of engines: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, engineStart+"*"))
	if err != nil {
		return nil, err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil {
			return nil, fmt.Errorf("cannot remove what a crash left of an engine: %w", err)
		}
	}
	return &Engines{dir: dir, ring: ring, limit: limit, now: now}, nil
}

func engineAAD(name, part string, size int64) secure.AAD {
	return secure.AAD{Bucket: "engine/" + name, Key: fmt.Sprintf("%s/%d", part, size), Schema: schema}
}

// Put seals an engine, then removes the oldest entries beyond the limit. engine is read and not kept. An engine that is
// larger than the limit by itself is not kept: the error says so.
func (e *Engines) Put(key EngineKey, engine []byte) (err error) {
	if int64(len(engine)) > e.limit {
		return fmt.Errorf("an engine of %d bytes is not cached: the cache holds %d", len(engine), e.limit)
	}
	name, err := key.name()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(e.dir, engineStart)
	if err != nil {
		return fmt.Errorf("cannot cache an engine: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot cache an engine: %w", err), ignoreMissing(os.Remove(f.Name())))
		}
	}()
	err = e.write(f, name, key, engine)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(e.dir, name)); err != nil {
		return err
	}
	if err := errors.Join(e.touch(name), syncDir(e.dir)); err != nil {
		return err
	}
	return e.evict(name)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (e *Engines) touch(name string) error {
	now := e.now()
	return os.Chtimes(filepath.Join(e.dir, name), now, now)
}

// write writes an entry.
func (e *Engines) write(w io.Writer, name string, key EngineKey, engine []byte) error {
	size := int64(len(engine))
	dek, wrapped, err := e.ring.NewDEK(secure.Models, engineAAD(name, "dek", size))
	if err != nil {
		return err
	}
	defer dek.Close()
	text, err := json.Marshal(key)
	if err != nil {
		return err
	}
	sealedKey, err := dek.Seal(text, engineAAD(name, "key", size))
	if err != nil {
		return err
	}
	head := []byte(engineMagic)
	head = append(binary.BigEndian.AppendUint32(head, uint32(len(wrapped))), wrapped...)
	head = append(binary.BigEndian.AppendUint32(head, uint32(len(sealedKey))), sealedKey...)
	head = binary.BigEndian.AppendUint64(head, uint64(size))
	if _, err := w.Write(head); err != nil {
		return err
	}
	for i := int64(0); i*engineChunk < size; i++ {
		piece := engine[i*engineChunk : min(size, (i+1)*engineChunk)]
		env, err := dek.Seal(piece, engineAAD(name, fmt.Sprint(i), size))
		if err != nil {
			return err
		}
		if _, err := w.Write(env); err != nil {
			return err
		}
	}
	return nil
}

// entry is a file of the cache.
type entry struct {
	name  string
	bytes int64
	used  time.Time
}

// entries lists the cache, the one that was not used for longest first.
func (e *Engines) entries() (list []entry, err error) {
	files, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the folder of engines: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || !strings.HasSuffix(f.Name(), engineSuffix) {
			continue // gone meanwhile, or not ours
		}
		list = append(list, entry{f.Name(), info.Size(), info.ModTime()})
	}
	slices.SortFunc(list, func(a, b entry) int { return a.used.Compare(b.used) })
	return list, nil
}

// evict removes the oldest entries until all fit, and never keep.
func (e *Engines) evict(keep string) error {
	list, err := e.entries()
	if err != nil {
		return err
	}
	total := int64(0)
	for _, x := range list {
		total += x.bytes
	}
	for _, x := range list {
		if total <= e.limit {
			return nil
		}
		if x.name == keep {
			continue
		}
		if err := ignoreMissing(os.Remove(filepath.Join(e.dir, x.name))); err != nil {
			return err
		}
		total -= x.bytes
	}
	return nil
}

// Bytes is what the cache takes on the disk, and how many engines it holds.
func (e *Engines) Bytes() (n int64, count int, err error) {
	list, err := e.entries()
	for _, x := range list {
		n += x.bytes
	}
	return n, len(list), err
}

// Forget removes every engine of the model files of these SHA-256, whatever library they are for. Entries that do not open
// are removed too: nobody can say of what they are.
func (e *Engines) Forget(models []string) error {
	list, err := e.entries()
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range list {
		r, err := e.open(x.name)
		gone := errors.Is(err, ErrBroken)
		if err == nil {
			gone = slices.Contains(models, r.key.Model)
			errs = append(errs, r.Close())
		}
		if gone {
			errs = append(errs, ignoreMissing(os.Remove(filepath.Join(e.dir, x.name))))
		}
	}
	return errors.Join(append(errs, syncDir(e.dir))...)
}

// Open finds the engine of a key and checks all of it. Its caller closes it. Errors: ErrNotFound; ErrBroken for an entry that was
// altered, which is removed, so that the next Open answers ErrNotFound.
func (e *Engines) Open(key EngineKey) (*Engine, error) {
	name, err := key.name()
	if err != nil {
		return nil, err
	}
	r, err := e.open(name)
	if err == nil {
		if r.key != key {
			err = fmt.Errorf("%w: it is of another key", ErrBroken)
		} else {
			err = r.check()
		}
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}
	if errors.Is(err, ErrBroken) {
		err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(e.dir, name))))
	}
	if err != nil {
		return nil, err
	}
	return r, e.touch(name)
}

// open reads the head of an entry.
func (e *Engines) open(name string) (r *Engine, err error) {
	f, err := os.Open(filepath.Join(e.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("engine: %w in the cache", ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read a cached engine: %w", err)
	}
	r = &Engine{f: f, name: name, at: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	return r, r.head(e.ring)
}

// Engine is an engine of the cache, decrypted piece by piece into locked memory. One goroutine uses it.
type Engine struct {
	f     *os.File
	name  string
	key   EngineKey
	dek   *secure.Key
	size  int64
	start int64       // of the first envelope in the file
	piece *mem.Buffer // plaintext of envelope at
	env   []byte      // ciphertext of it
	at    int64       // -1 for none
}

// head reads what stands before the envelopes.
func (r *Engine) head(ring *secure.Keyring) error {
	broken := func(err error) error { return fmt.Errorf("%w: %v", ErrBroken, err) }
	section := func(limit uint32) ([]byte, error) {
		var n [4]byte
		if _, err := io.ReadFull(r.f, n[:]); err != nil {
			return nil, err
		}
		size := binary.BigEndian.Uint32(n[:])
		if size > limit {
			return nil, fmt.Errorf("a part of %d bytes", size)
		}
		data := make([]byte, size)
		_, err := io.ReadFull(r.f, data)
		return data, err
	}
	magic := make([]byte, len(engineMagic))
	if _, err := io.ReadFull(r.f, magic); err != nil || !bytes.Equal(magic, []byte(engineMagic)) {
		return broken(fmt.Errorf("it does not begin as an engine of this version (%v)", err))
	}
	wrapped, err := section(maxKeyBytes)
	if err != nil {
		return broken(err)
	}
	sealedKey, err := section(maxKeyBytes)
	if err != nil {
		return broken(err)
	}
	var size [8]byte
	if _, err := io.ReadFull(r.f, size[:]); err != nil {
		return broken(err)
	}
	n := binary.BigEndian.Uint64(size[:])
	if n == 0 || n > maxEngineSize {
		return broken(fmt.Errorf("an engine of %d bytes", n))
	}
	r.size = int64(n)
	if r.start, err = r.f.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	if r.dek, err = ring.OpenDEK(secure.Models, wrapped, engineAAD(r.name, "dek", r.size)); err != nil {
		return brokenBy(err)
	}
	text, err := r.dek.Open(sealedKey, engineAAD(r.name, "key", r.size))
	if err != nil {
		return brokenBy(err)
	}
	if err := json.Unmarshal(text, &r.key); err != nil {
		return broken(err)
	}
	if r.piece, err = mem.New(engineChunk); err != nil {
		return err
	}
	r.env = make([]byte, engineChunk+secure.EnvelopeOverhead)
	return nil
}

// brokenBy tells an entry that cannot be opened from a device that cannot open any.
func brokenBy(err error) error {
	if errors.Is(err, secure.ErrClosed) || errors.Is(err, mem.ErrLimit) {
		return err
	}
	return fmt.Errorf("%w: %v", ErrBroken, err)
}

// check decrypts every piece, and that nothing is behind them.
func (r *Engine) check() error {
	pieces := (r.size + engineChunk - 1) / engineChunk
	for i := range pieces {
		if err := r.load(i); err != nil {
			return err
		}
	}
	info, err := r.f.Stat()
	if err != nil {
		return err
	}
	if want := r.start + r.size + pieces*secure.EnvelopeOverhead; info.Size() != want {
		return fmt.Errorf("%w: %d bytes, it should have %d", ErrBroken, info.Size(), want)
	}
	return nil
}

// load decrypts piece i.
func (r *Engine) load(i int64) error {
	if r.at == i {
		return nil
	}
	r.at = -1
	n := min(engineChunk, r.size-i*engineChunk)
	env := r.env[:n+secure.EnvelopeOverhead]
	if _, err := r.f.ReadAt(env, r.start+i*(engineChunk+secure.EnvelopeOverhead)); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it is cut off", ErrBroken)
		}
		return fmt.Errorf("cannot read a cached engine: %w", err)
	}
	if _, err := r.dek.OpenInto(r.piece.Bytes(), env, engineAAD(r.name, fmt.Sprint(i), r.size)); err != nil {
		return brokenBy(err)
	}
	r.at = i
	return nil
}

// Size is the engine's length in bytes.
func (r *Engine) Size() int64 { return r.size }

// ReadAt implements io.ReaderAt. What it decrypts lies in locked memory until Close; p is the caller's.
func (r *Engine) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("cannot read an engine at %d", off)
	}
	for n < len(p) {
		if off >= r.size {
			return n, io.EOF
		}
		if err := r.load(off / engineChunk); err != nil {
			return n, err
		}
		valid := min(engineChunk, r.size-off/engineChunk*engineChunk)
		k := copy(p[n:], r.piece.Bytes()[off%engineChunk:valid])
		n, off = n+k, off+int64(k)
	}
	return n, nil
}

// Close wipes the piece and the key.
func (r *Engine) Close() error {
	var err error
	if r.dek != nil {
		err = r.dek.Close()
	}
	if r.piece != nil {
		err = errors.Join(err, r.piece.Close())
	}
	return errors.Join(err, r.f.Close())
}
