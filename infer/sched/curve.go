package sched

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"
)

// Curve is how long a batch of each size takes, learned from every run: an exponentially weighted mean and mean absolute
// deviation per size, over the latest memory runs or so. A run that takes much longer than any expectation counts as one
// that took outlier deviations longer, so that a hiccup of the machine moves the curve a little, and a lasting change
// moves it within a few runs. It is not safe for concurrent use.
type Curve struct {
	at []point // by size - 1
}

type point struct {
	runs      uint32
	mean, dev float64 // seconds
}

const (
	memory  = 32       // runs that the means go back
	outlier = 8        // deviations
	leastCV = 1.0 / 16 // deviation as a part of the mean, at least, for telling outliers
	firstCV = 1.0 / 4  // likewise after one run, when nothing is known of it
	// margin is how many mean absolute deviations an estimate is safe by: 3 of them are 2.4 standard deviations of a
	// normal distribution, which 99 of 100 runs stay below.
	margin = 3
)

// Observe learns from one run. A size below 1 or above MaxSize, and a time that is not above 0, teach nothing.
func (c *Curve) Observe(size int, took time.Duration) {
	x := took.Seconds()
	if size < 1 || size > MaxSize || !(x > 0) {
		return
	}
	for len(c.at) < size {
		c.at = append(c.at, point{})
	}
	c.at[size-1].learn(x)
}

// learn takes one more observation in.
func (p *point) learn(x float64) {
	if p.runs == 0 {
		*p = point{runs: 1, mean: x, dev: x * firstCV}
		return
	}
	x = min(x, p.mean+outlier*max(p.dev, p.mean*leastCV))
	p.runs = min(p.runs+1, memory)
	d, weight := x-p.mean, 1/float64(p.runs)
	p.mean += weight * d
	p.dev += weight * (math.Abs(d) - p.dev)
}

// MaxSize bounds the sizes of a curve.
const MaxSize = 256

// Known reports whether a run of any size was observed.
func (c *Curve) Known() bool {
	return slices.ContainsFunc(c.at, func(p point) bool { return p.runs > 0 })
}

// Predict is the time that a batch of a size takes and its mean absolute deviation; 0 if nothing was observed. Between two
// sizes it is interpolated, beyond the largest in proportion (what was not measured promises no gain), below the smallest
// as that one.
func (c *Curve) Predict(size int) (mean, dev time.Duration) {
	p := c.predict(size)
	return seconds(p.mean), seconds(p.dev)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (c *Curve) predict(size int) point {
	if size >= 1 && size <= len(c.at) && c.at[size-1].runs > 0 {
		return c.at[size-1]
	}
	lo, hi := 0, 0
	for i, p := range c.at {
		if p.runs == 0 {
			continue
		}
		if n := i + 1; n < size {
			lo = n
		} else {
			hi = n
			break
		}
	}
	switch {
	case lo == 0 && hi == 0:
		return point{}
	case lo == 0:
		return c.at[hi-1]
	case hi == 0:
		p, k := c.at[lo-1], float64(size)/float64(lo)
		return point{mean: p.mean * k, dev: p.dev * k}
	}
	a, b, k := c.at[lo-1], c.at[hi-1], float64(size-lo)/float64(hi-lo)
	return point{mean: a.mean + k*(b.mean-a.mean), dev: a.dev + k*(b.dev-a.dev)}
}

// The kept form of a curve, little endian: magic, number of sizes (1 byte), the length of the key (1 byte), the key, then
// per size, ascending: size (2 bytes), runs (2), mean and deviation (float64, seconds); a CRC-32 (IEEE) of it all.
const (
	curveMagic = "VGC1"
	entryBytes = 2 + 2 + 8 + 8
	maxKey     = 255
	// trustedRuns is how many runs a kept curve weighs: what was true yesterday is a good guess, which a few runs of today
	// outweigh.
	trustedRuns = 4
)

// ErrCurve means that the bytes are no curve, or the curve of something else.
var ErrCurve = errors.New("not a latency curve of this engine")

// Append appends the curve's kept form to b. key names what was measured, in at most 255 bytes: model, runtime, workers.
func (c *Curve) Append(b []byte, key string) ([]byte, error) {
	if len(key) > maxKey {
		return b, fmt.Errorf("cannot keep a latency curve: its key has %d bytes, at most %d fit", len(key), maxKey)
	}
	from, n := len(b), 0
	b = append(b, curveMagic...)
	b = append(b, 0, byte(len(key)))
	b = append(b, key...)
	for i, p := range c.at {
		if p.runs == 0 || n == 255 {
			continue
		}
		n++
		b = binary.LittleEndian.AppendUint16(b, uint16(i+1))
		b = binary.LittleEndian.AppendUint16(b, uint16(p.runs))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(p.mean))
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(p.dev))
	}
	b[from+len(curveMagic)] = byte(n)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[from:])), nil
}

// ParseCurve reads the kept form of the curve of key. What it holds weighs little against new runs. Errors: ErrCurve.
func ParseCurve(b []byte, key string) (Curve, error) {
	var c Curve
	head := len(curveMagic) + 2
	if len(b) < head+4 || string(b[:len(curveMagic)]) != curveMagic {
		return c, fmt.Errorf("%w: %d bytes of another format", ErrCurve, len(b))
	}
	n, k := int(b[head-2]), int(b[head-1])
	if len(b) != head+k+n*entryBytes+4 {
		return c, fmt.Errorf("%w: %d bytes for %d sizes", ErrCurve, len(b), n)
	}
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return c, fmt.Errorf("%w: its checksum is wrong", ErrCurve)
	}
	if have := string(body[head : head+k]); have != key {
		return c, fmt.Errorf("%w: it is of %q, not of %q", ErrCurve, have, key)
	}
	last := 0
	for e := body[head+k:]; len(e) > 0; e = e[entryBytes:] {
		size := int(binary.LittleEndian.Uint16(e))
		p := point{
			runs: uint32(binary.LittleEndian.Uint16(e[2:])),
			mean: math.Float64frombits(binary.LittleEndian.Uint64(e[4:])), dev: math.Float64frombits(binary.LittleEndian.Uint64(e[12:])),
		}
		if size <= last || size > MaxSize || !p.sane() {
			return Curve{}, fmt.Errorf("%w: size %d after %d with %+v", ErrCurve, size, last, p)
		}
		last = size
		p.runs = min(p.runs, trustedRuns)
		for len(c.at) < size {
			c.at = append(c.at, point{})
		}
		c.at[size-1] = p
	}
	return c, nil
}

// sane reports whether a run can have taken such a time: above 0, up to an hour.
func (p point) sane() bool {
	const longest = 3600
	return p.runs >= 1 && p.runs <= memory && p.mean > 0 && p.mean <= longest && p.dev >= 0 && p.dev <= longest
}
