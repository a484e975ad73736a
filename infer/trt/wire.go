package trt

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"vigil/infer"
)

// The two sides of a build speak in frames: one byte of type, the length as uint32, big-endian, and as many bytes.
//
//	to the child    q  Order as JSON
//	                m  the ONNX model
//	from the child  p  Step as JSON, any number
//	                e  number of bytes of the engine, uint64, big-endian
//	                d  a piece of the engine, at most pieceBytes; any number, in order
//	                z  Built as JSON: the end, all is well
//	                x  the error in words: the end
const (
	frameOrder  = 'q'
	frameModel  = 'm'
	frameStep   = 'p'
	frameSize   = 'e'
	framePiece  = 'd'
	frameBuilt  = 'z'
	frameFailed = 'x'
)

// Bounds of frames.
const (
	headerBytes = 5
	pieceBytes  = 1 << 20
	pipeBytes   = 64 << 10 // what a pipe of Linux holds
	jsonBytes   = 64 << 10
	// maxEngineBytes bounds an engine: the models of a bundle have at most infer.MaxModelBytes, and TensorRT keeps several
	// forms of a weight at the worst.
	maxEngineBytes = 4 * infer.MaxModelBytes
)

// errWire means that the other side does not speak as it should.
var errWire = errors.New("the build child's pipe carries something else than frames")

// frameLimit is how long a frame of a type may be; 0 for types that there are not.
func frameLimit(kind byte) int64 {
	switch kind {
	case frameOrder, frameStep, frameBuilt, frameFailed:
		return jsonBytes
	case frameModel:
		return infer.MaxModelBytes
	case frameSize:
		return 8
	case framePiece:
		return pieceBytes
	}
	return 0
}

// writeFrame writes one frame.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if int64(len(payload)) > frameLimit(kind) || len(payload) > math.MaxUint32 {
		return fmt.Errorf("cannot send a frame %q of %d bytes: too many", kind, len(payload))
	}
	var head [headerBytes]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	for len(payload) > 0 { // as much as a pipe takes at once
		n := min(len(payload), pipeBytes)
		if _, err := w.Write(payload[:n]); err != nil {
			return err
		}
		payload = payload[n:]
	}
	return nil
}

func writeJSON(w io.Writer, kind byte, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, data)
}

// readHead reads the header of a frame and checks it. io.EOF: there is none.
func readHead(r io.Reader) (kind byte, bytes int, err error) {
	var head [headerBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it ends within a header", errWire)
		}
		return 0, 0, err
	}
	kind = head[0]
	n := binary.BigEndian.Uint32(head[1:])
	if int64(n) > frameLimit(kind) {
		return 0, 0, fmt.Errorf("%w: a frame %q of %d bytes", errWire, kind, n)
	}
	return kind, int(n), nil
}

// readPayload reads the rest of a frame that is small.
func readPayload(r io.Reader, bytes int) ([]byte, error) {
	data := make([]byte, bytes)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%w: it ends within a frame", errWire)
	}
	return data, nil
}

// Order is what the child is to build.
type Order struct {
	Library        string         `json:"library"` // as Options.Library
	Inputs         []infer.Tensor `json:"inputs"`  // their shapes fix what the model leaves open
	WorkspaceBytes int64          `json:"workspace_bytes"`
	MemoryBytes    int64          `json:"memory_bytes"` // of the child's data, at most; 0 sets no limit
	CPUSeconds     int64          `json:"cpu_seconds"`  // of its processor time, at most; 0 sets no limit
}

// Step is progress of a build. Phases nest: Parent names the phase that this one is within.
type Step struct {
	Phase  string `json:"phase"`
	Parent string `json:"parent,omitempty"`
	Done   int    `json:"done"`  // steps; -1 when the phase has ended
	Steps  int    `json:"steps"` // of the phase; 0 where it was said before
}

// Built is what was built.
type Built struct {
	Library  Library `json:"library"`
	Bytes    int64   `json:"bytes"` // of the serialised engine
	Layers   int     `json:"layers"`
	Quantize int     `json:"quantize"` // layers that quantise, as the parser read them
	// Dequantize is how many layers do the opposite.
	Dequantize int      `json:"dequantize"`
	Seconds    float64  `json:"seconds"`
	Peak       int64    `json:"peak_bytes"` // of the child's memory, resident
	Notes      []string `json:"notes"`      // TensorRT's own warnings, the first of them
}

// Exchange is the parent's side of a build: it sends the order and the model and receives the engine, into memory of
// alloc, which the caller closes. step may be nil. It returns when the child has said its last word or its pipe ends;
// whoever started the child ends it when a context does. Errors: ErrRefused with the child's words, and those of the pipes.
func Exchange(to io.Writer, from io.Reader, order Order, model []byte, alloc Alloc, step func(Step)) (Memory, Built, error) {
	if err := writeJSON(to, frameOrder, order); err != nil {
		return nil, Built{}, fmt.Errorf("cannot send the order: %w", err)
	}
	if err := writeFrame(to, frameModel, model); err != nil {
		return nil, Built{}, fmt.Errorf("cannot send the model: %w", err)
	}
	x := receiver{from: from, alloc: alloc, step: step}
	built, err := x.receive()
	if err == nil && int64(x.filled) != x.size {
		err = fmt.Errorf("%w: an engine of %d bytes, %d were promised", errWire, x.filled, x.size)
	}
	if err != nil {
		if x.engine != nil {
			err = errors.Join(err, x.engine.Close())
		}
		return nil, Built{}, err
	}
	built.Bytes = x.size // what was received counts, not what was said of it
	return x.engine, built, nil
}

// receiver gathers what the child sends.
type receiver struct {
	from   io.Reader // not buffered: nothing of the engine is to lie elsewhere
	alloc  Alloc
	step   func(Step)
	engine Memory
	size   int64
	filled int
}

func (x *receiver) receive() (b Built, err error) {
	for {
		kind, n, err := readHead(x.from)
		if errors.Is(err, io.EOF) {
			return b, fmt.Errorf("the build child ended without an answer: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return b, err
		}
		if kind == framePiece {
			if err := x.piece(n); err != nil {
				return b, err
			}
			continue
		}
		data, err := readPayload(x.from, n)
		if err != nil {
			return b, err
		}
		switch kind {
		case frameStep:
			var s Step
			if err := json.Unmarshal(data, &s); err != nil {
				return b, fmt.Errorf("%w: %v", errWire, err)
			}
			if x.step != nil {
				x.step(s)
			}
		case frameSize:
			if err := x.begin(data); err != nil {
				return b, err
			}
		case frameBuilt:
			if err := json.Unmarshal(data, &b); err != nil || x.engine == nil {
				return b, fmt.Errorf("%w: an end without an engine (%v)", errWire, err)
			}
			return b, nil
		case frameFailed:
			return b, fmt.Errorf("%w: %s", ErrRefused, data)
		default:
			return b, fmt.Errorf("%w: a frame %q from the child", errWire, kind)
		}
	}
}

// begin makes room for the engine.
func (x *receiver) begin(data []byte) (err error) {
	if len(data) != 8 || x.engine != nil {
		return fmt.Errorf("%w: a second or broken size", errWire)
	}
	n := binary.BigEndian.Uint64(data)
	if n == 0 || n > maxEngineBytes {
		return fmt.Errorf("%w: an engine of %d bytes", errWire, n)
	}
	x.size = int64(n)
	x.engine, err = x.alloc(int(n))
	return err
}

// piece reads a piece of the engine to its place; it is nowhere else on the way.
func (x *receiver) piece(n int) error {
	if x.engine == nil || int64(x.filled+n) > x.size {
		return fmt.Errorf("%w: more of an engine than was promised", errWire)
	}
	if _, err := io.ReadFull(x.from, x.engine.Bytes()[x.filled:x.filled+n]); err != nil {
		return fmt.Errorf("%w: it ends within the engine", errWire)
	}
	x.filled += n
	return nil
}
