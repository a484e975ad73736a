package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"sync"
)

// maxScans bounds the scans of a progressive JPEG. Encoders make about ten; a scan of a hundred bytes can make a decoder pass over
// every block of a picture.
const maxScans = 100

// Markers (ITU-T T.81, table B.1).
const (
	markSOF0, markSOF1 = 0xc0, 0xc1 // sequential
	markSOFs, markSOFe = 0xc0, 0xcf // all frame headers, with DHT, JPG and DAC among them
	markDHT            = 0xc4
	markJPG            = 0xc8
	markDAC            = 0xcc
	markDQT            = 0xdb
	markSOS            = 0xda
)

// jpegKind is what the segments before the first scan say.
type jpegKind struct {
	sequential bool    // baseline or extended; if not, it is progressive or unknown
	components int     // 0: unknown
	samples    float64 // of all components, per pixel
	tables     bool    // there are Huffman tables
	quantised  bool    // there are quantisation tables
	scan       int     // offset of the first scan's marker; 0: the segments do not follow each other as they should
}

// segments walks from segment to segment. What is not laid out as it should is not guessed at: it is reported as unknown, and
// taken for the most expensive.
func segments(data []byte) (k jpegKind) {
	for p := 2; p+4 <= len(data) && data[p] == 0xff; {
		mark, size := data[p+1], int(data[p+2])<<8|int(data[p+3])
		if size < 2 || p+2+size > len(data) {
			return jpegKind{}
		}
		body := data[p+4 : p+2+size]
		switch {
		case mark == markSOS:
			k.scan = p
			return k
		case mark == markDHT:
			k.tables = true
		case mark == markDQT:
			k.quantised = true
		case mark == markJPG || mark == markDAC:
			return jpegKind{}
		case mark >= markSOFs && mark <= markSOFe:
			k.frame(mark, body)
		case mark < markDQT || mark > 0xfe: // of no length, or none at all
			return jpegKind{}
		}
		p += 2 + size
	}
	return jpegKind{}
}

// frame reads a frame header.
func (k *jpegKind) frame(mark byte, body []byte) {
	if len(body) < 6 || len(body) < 6+3*int(body[5]) {
		return
	}
	k.sequential, k.components = mark == markSOF0 || mark == markSOF1, int(body[5])
	most, sum := 0, 0
	var h, v int
	for i := range k.components {
		f := body[6+3*i+1]
		h, v = max(h, int(f>>4)), max(v, int(f&15))
		sum += int(f>>4) * int(f&15)
	}
	if most = h * v; most > 0 {
		k.samples = float64(sum) / float64(most)
	}
}

// checkJPEG refuses what has no quantisation tables, of which Go's decoder makes an even grey, and what would cost too much: Go's
// decoder keeps a byte a sample, four more a sample of what is not sequential, and four more a pixel of four components.
func checkJPEG(data []byte, w, h int) error {
	k := segments(data)
	if k.scan > 0 && !k.quantised {
		return fmt.Errorf("%w: no quantisation tables", ErrBroken)
	}
	perPixel := k.samples
	if k.scan == 0 || k.samples == 0 {
		perPixel = 4
	}
	if k.scan == 0 || !k.sequential {
		perPixel *= 5
		if n := bytes.Count(data, []byte{0xff, markSOS}); n > maxScans {
			return fmt.Errorf("%w: %d scans, the limit is %d: save it as a baseline JPEG", ErrTooLarge, n, maxScans)
		}
	}
	if k.components > 3 || k.scan == 0 {
		perPixel += 4
	}
	return checkMemory(w, h, perPixel, "save it as a baseline JPEG or scale it down")
}

// checkMemory refuses a picture whose decoder would need more than maxDecoderBytes beside the frame.
func checkMemory(w, h int, bytesPerPixel float64, remedy string) error {
	if need := bytesPerPixel * float64(w) * float64(h); need > maxDecoderBytes {
		return fmt.Errorf("%w: %dx%d pixels of this kind need %.0f MiB to decode, the limit is %d: %s",
			ErrTooLarge, w, h, need/(1<<20), maxDecoderBytes>>20, remedy)
	}
	return nil
}

// decodeJPEG is Go's decoder, which also takes pictures without Huffman tables: cameras leave them out of motion JPEG, and mean
// the ones that are typical (T.81, annex K.3).
func decodeJPEG(data []byte) (image.Image, error) {
	if k := segments(data); k.scan > 0 && k.sequential && !k.tables {
		data = bytes.Join([][]byte{data[:k.scan], typicalTables(), data[k.scan:]}, nil)
	}
	return jpeg.Decode(bytes.NewReader(data))
}

// typicalTables is a DHT segment of the four tables: what Go's encoder writes.
var typicalTables = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, image.NewYCbCr(image.Rect(0, 0, 8, 8), image.YCbCrSubsampleRatio420), nil); err != nil {
		return nil // never: a buffer takes everything
	}
	data := b.Bytes()
	for p := 2; p+4 <= len(data); p += 2 + int(data[p+2])<<8 + int(data[p+3]) {
		if data[p+1] == markDHT {
			return data[p : p+2+int(data[p+2])<<8+int(data[p+3])]
		}
	}
	return nil
})
