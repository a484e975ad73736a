// Command overhead measures what a frame costs beyond its models: the whole way of a frame (scaling, detection, alignment,
// quality, embedding with its mirror image, template, search among enrolled people) against the sum of the raw runs of the
// same models by a C program on ONNX Runtime's C API. Both use one thread, the same library, files and session options, and
// run in turns; the ratio is the median of paired runs. `make bench-overhead` runs it; it needs a quiet machine.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"vigil/bench/open"
	"vigil/infer"
	"vigil/infer/face"
	"vigil/infer/ort"
	"vigil/infer/preset"
	"vigil/infer/vnni"
	"vigil/kernels/cpu"
	"vigil/sensors"
	"vigil/sensors/picture"
)

type options struct {
	pairs, frames, people int
	times                 int
	limit                 float64
	json                  bool
	raw, bundle           string
}

func main() {
	var o options
	flag.IntVar(&o.pairs, "pairs", 20, "paired runs")
	flag.IntVar(&o.frames, "frames", 60, "frames of a run")
	flag.IntVar(&o.times, "times", 5, "passes of a run over all frames; of every frame the least counts, for what the host of a virtual machine takes away is nobody's cost")
	flag.IntVar(&o.people, "people", 1000, "templates to search")
	flag.Float64Var(&o.limit, "limit", 0, "fail if the median overhead is above this many percent; 0 never fails")
	flag.BoolVar(&o.json, "json", false, "print the result as JSON")
	flag.StringVar(&o.bundle, "bundle", "", "folder of a bundle, such as one with 8-bit variants, which both run where it has them; empty is the float preset")
	flag.StringVar(&o.raw, "raw", "bin/bench-raw", "the C program")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

// result of the measurement; times are medians of a frame.
type result struct {
	Runtime      string  `json:"runtime"`
	Kernels      string  `json:"kernels"`
	Frames       int     `json:"frames"`
	Faces        int     `json:"faces"`
	RawSeconds   float64 `json:"raw_seconds"`
	FrameSeconds float64 `json:"frame_seconds"`
	// Percent by which a frame costs more than its models: median and quartiles over the pairs.
	Percent float64 `json:"overhead_percent"`
	Low     float64 `json:"overhead_percent_low"`
	High    float64 `json:"overhead_percent_high"`
	Pairs   int     `json:"pairs"`
}

func run(ctx context.Context, o options) (err error) {
	plain, err := ort.Open(ort.Options{Threads: 1})
	if err != nil {
		return err
	}
	rt := vnni.Over(plain) // what a device runs
	defer func() { err = errors.Join(err, rt.Close()) }()
	m, files, err := bundle(o.bundle, rt.Dialects())
	if err != nil {
		return err
	}
	p, err := face.New(ctx, rt, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	frames, err := pictures(ctx, o.frames)
	if err != nil {
		return err
	}
	lib, err := ort.Find("")
	if err != nil {
		return err
	}
	inputs, err := writeInputs(ctx, p, m, frames)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(inputs)) }()
	peer, err := start(ctx, o.raw, lib, files[0], files[1], inputs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.close()) }()
	w := &way{p: p, r: p.NewResult(), gallery: gallery(o.people, p.Dimension()), scores: make([]int32, o.people)}
	r := result{Runtime: rt.Name(), Kernels: cpu.Name(), Frames: len(frames), Pairs: o.pairs}
	if r.Faces, err = w.frames(ctx, frames, newLeast(len(frames))); err != nil { // warm, and how often the embedder runs
		return err
	}
	if err := peer.pass(newLeast(len(frames))); err != nil {
		return err
	}
	if err := r.measure(ctx, o, w, peer, frames); err != nil {
		return err
	}
	if err := r.print(os.Stdout, o.json); err != nil {
		return err
	}
	if o.limit > 0 && r.Percent > o.limit {
		return fmt.Errorf("the overhead is %.2f %%, at most %.2f %% is asked", r.Percent, o.limit)
	}
	return nil
}

// measure runs both in turns, pass by pass, the order changing each time, so that what drifts drifts for both. Of every frame the
// least of the passes of a pair counts.
func (r *result) measure(ctx context.Context, o options, w *way, peer *raw, frames []*sensors.Frame) error {
	var ours, theirs, percent []float64
	for i := range o.pairs {
		a, b := newLeast(len(frames)), newLeast(len(frames))
		for pass := range o.times {
			both := []func() error{
				func() error { _, err := w.frames(ctx, frames, a); return err },
				func() error { return peer.pass(b) },
			}
			first := (i + pass) % 2
			if err := errors.Join(both[first](), both[1-first]()); err != nil {
				return err
			}
		}
		ours, theirs, percent = append(ours, a.mean()), append(theirs, b.mean()), append(percent, 100*(a.mean()/b.mean()-1))
		fmt.Fprintf(os.Stderr, "\rpair %d of %d", i+1, o.pairs)
	}
	fmt.Fprintln(os.Stderr)
	r.FrameSeconds, r.RawSeconds = quantile(ours, 0.5), quantile(theirs, 0.5)
	r.Percent, r.Low, r.High = quantile(percent, 0.5), quantile(percent, 0.25), quantile(percent, 0.75)
	return nil
}

// least holds the shortest time of every frame so far, in seconds.
type least []float64

func newLeast(frames int) least { return slices.Repeat(least{math.Inf(1)}, frames) }

func (l least) take(frame int, seconds float64) { l[frame] = min(l[frame], seconds) }

func (l least) mean() (sum float64) {
	for _, v := range l {
		sum += v / float64(len(l))
	}
	return sum
}

func quantile(v []float64, q float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[int(q*float64(len(v)-1)+0.5)]
}

func (r *result) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintf(w, "%s, one thread, kernels %s: %d frames with %d faces, %d paired runs\n"+
		"raw runs of the models  %.3f ms a frame\nwhole way of a frame    %.3f ms\noverhead                %.2f %% (quartiles %.2f .. %.2f)\n",
		r.Runtime, r.Kernels, r.Frames, r.Faces, r.Pairs, r.RawSeconds*1e3, r.FrameSeconds*1e3, r.Percent, r.Low, r.High)
	return err
}

// way is that of a frame to the best candidate.
type way struct {
	p       *face.Pipeline
	r       *face.Result
	gallery []int8
	scores  []int32
}

// frames processes all frames once, notes how long each took, and counts the faces.
func (w *way) frames(ctx context.Context, frames []*sensors.Frame, took least) (faces int, err error) {
	for i, f := range frames {
		begin := time.Now()
		if err := w.p.Process(ctx, f, w.r); err != nil {
			return 0, err
		}
		for _, face := range w.r.Faces {
			w.search(face.Values)
		}
		faces += len(w.r.Faces)
		w.r.Wipe()
		took.take(i, time.Since(begin).Seconds())
	}
	return faces, nil
}

// search looks at every row, as a gallery does.
func (w *way) search(probe []int8) int32 {
	cpu.DotRows(w.scores, w.gallery, len(probe), probe)
	return slices.Max(w.scores)
}

func gallery(people, dimension int) []int8 {
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]int8, people*dimension)
	for i := range rows {
		rows[i] = int8(r.IntN(255) - 127)
	}
	return rows
}

// bundle is the face preset, with its files.
func bundle(dir string, dialects []string) (_ *infer.Model, files [2]string, err error) {
	var manifest *infer.Manifest // that of the folder
	if dir == "" {
		dir = filepath.Join(open.Data(), "models")
		if manifest, err = preset.Load("face"); err != nil {
			return nil, files, err
		}
	}
	m, err := infer.FromDir(os.DirFS(dir), manifest)
	if err != nil {
		return nil, files, err
	}
	for i, stage := range []string{face.StageDetect, face.StageEmbed} {
		files[i] = filepath.Join(dir, m.Manifest.StagesOf(stage)[0].Choose(dialects).File)
	}
	return m, files, nil
}

// pictures are frames of the open faces.
func pictures(ctx context.Context, n int) ([]*sensors.Frame, error) {
	all, err := filepath.Glob(filepath.Join(open.Data(), "faces", "lfw", "*", "*.jpg"))
	if err != nil {
		return nil, err
	}
	if len(all) < n {
		return nil, fmt.Errorf("%d pictures are needed below %s: point VIGIL_DATA to the folder of models and pictures", n, open.Data())
	}
	slices.Sort(all)
	pool := sensors.NewPool(n)
	var frames []*sensors.Frame
	for i := range n {
		data, err := os.ReadFile(all[i*len(all)/n])
		if err != nil {
			return nil, err
		}
		f, err := picture.Decode(ctx, pool, data)
		if err != nil {
			return nil, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}

// writeInputs writes what the models read of the frames, as the C program takes it, to a file.
func writeInputs(ctx context.Context, p *face.Pipeline, m *infer.Model, frames []*sensors.Frame) (path string, err error) {
	f, err := os.CreateTemp("", "vigil-inputs-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	detect := make([]float32, m.Manifest.StagesOf(face.StageDetect)[0].Inputs[0].Elements())
	embed := m.Manifest.StagesOf(face.StageEmbed)[0].Inputs[0]
	crop, r := make([]float32, embed.Elements()), p.NewResult()
	w := bufio.NewWriterSize(f, 1<<20)
	for _, frame := range frames {
		if err := p.Process(ctx, frame, r); err != nil {
			return f.Name(), err
		}
		faces := len(r.Faces)
		r.Wipe()
		if err := p.DetectInput(detect, frame); err != nil {
			return f.Name(), err
		}
		if faces > 0 { // of several faces the nearest to the centre stands for all: their crops are of one kind
			if err := p.EmbedInput(ctx, crop, frame); err != nil {
				return f.Name(), err
			}
		}
		err := errors.Join(binary.Write(w, binary.LittleEndian, float32(2*faces)), binary.Write(w, binary.LittleEndian, detect))
		for range 2 * faces { // with the mirror image
			err = errors.Join(err, binary.Write(w, binary.LittleEndian, crop))
			cpu.Mirror(crop, 3*int(embed.Shape[2]), int(embed.Shape[3]))
		}
		if err != nil {
			return f.Name(), err
		}
	}
	return f.Name(), w.Flush()
}

// raw is the C program.
type raw struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(ctx context.Context, program string, args ...string) (*raw, error) {
	r := &raw{cmd: exec.CommandContext(ctx, program, args...)}
	r.cmd.Stderr = os.Stderr
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReader(out)
	return r, r.cmd.Start()
}

// pass runs the models on the inputs of all frames once, and notes how long each frame took.
func (r *raw) pass(took least) error {
	if _, err := fmt.Fprintln(r.in, 1); err != nil {
		return err
	}
	for i := range took {
		var seconds float64
		if _, err := fmt.Fscanln(r.out, &seconds); err != nil {
			return fmt.Errorf("the C program: %w", err)
		}
		took.take(i, seconds)
	}
	return nil
}

func (r *raw) close() error { return errors.Join(r.in.Close(), r.cmd.Wait()) }
