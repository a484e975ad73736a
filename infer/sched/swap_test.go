package sched_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vigil/infer"
	"vigil/infer/infertest"
	"vigil/infer/quant/onnx"
	"vigil/infer/sched"
)

// adder is a real model, y = x + c: whatever answers says by c which model it was.
func adder(t testing.TB, c float32) []byte {
	t.Helper()
	const width = 4
	data := make([]byte, 0, 4*width)
	for range width {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(c))
	}
	m := &onnx.Model{Opset: 17, Inits: map[string]*onnx.Tensor{"c": {Type: onnx.Float, Dims: []int64{1, width}, Data: data}},
		Inputs:  []onnx.Value{{Name: "x", Type: onnx.Float, Dims: onnx.Dims(1, width)}},
		Outputs: []onnx.Value{{Name: "y", Type: onnx.Float, Dims: onnx.Dims(1, width)}},
		Nodes:   []*onnx.Node{{Name: "add", Op: "Add", Inputs: []string{"x", "c"}, Outputs: []string{"y"}}}}
	out, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// model is one loaded engine with tensors for each worker.
type model struct {
	engine infer.Engine
	ios    []infer.IO
	c      float32
}

func loadModel(t *testing.T, rt infer.Runtime, data []byte, c float32, workers int) (*model, error) {
	m := &model{c: c}
	var err error
	if m.engine, err = rt.Load(t.Context(), data, row("x", 4), row("y", 4)); err != nil {
		return nil, err
	}
	for range workers {
		io, err := m.engine.NewIO()
		if err != nil {
			return nil, err
		}
		m.ios = append(m.ios, io)
		if err := io.Run(t.Context()); err != nil { // warm-up
			return nil, err
		}
	}
	return m, nil
}

func (m *model) close() error {
	var errs []error
	for _, io := range m.ios {
		errs = append(errs, io.Close())
	}
	return errors.Join(append(errs, m.engine.Close())...)
}

// ask is one request and its answer.
type ask struct {
	x, y       float32
	c          float32 // of the model that answered
	generation uint64
}

// swapped runs asks on whatever the slot holds.
type swapped struct{ slot *sched.Slot[*model] }

func (s swapped) Run(worker int, batch []*ask) error {
	m, generation := s.slot.Enter(worker)
	defer s.slot.Leave(worker)
	io, a := m.ios[worker], batch[0]
	for i := range io.Input(0) {
		io.Input(0)[i] = a.x
	}
	if err := io.Run(context.Background()); err != nil {
		return err
	}
	a.y, a.c, a.generation = io.Output(0)[3], m.c, generation
	return nil
}

// footprint is what must stay flat.
type footprint struct {
	goroutines, files int
	residentKiB       int
}

func measureFootprint(t *testing.T) (f footprint) {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("no /proc to measure with: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if w := strings.Fields(line); w[0] == "VmRSS:" {
			if f.residentKiB, err = strconv.Atoi(w[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	f.files, f.goroutines = len(fds), runtime.NumGoroutine()
	return f
}

// TestManySwapsUnderTraffic loads a model, exchanges it for the one at work between two requests and unloads the old one,
// over and over, while requests come. `make soak-swap` does it 10,000 times.
func TestManySwapsUnderTraffic(t *testing.T) {
	cycles := 300
	if text := os.Getenv("VIGIL_SWAP_CYCLES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		cycles = n
	}
	const workers, clients, models = 2, 4, 16
	rt := infertest.Runtime(t)
	var files [models][]byte
	for i := range files {
		files[i] = adder(t, float32(i))
	}
	of := func(generation uint64) float32 { return float32(generation % models) }
	first, err := loadModel(t, rt, files[1], of(1), workers)
	if err != nil {
		t.Fatal(err)
	}
	slot := sched.NewSlot(workers, first)
	s, err := sched.New(swapped{slot}, sched.Options{Name: "adder", Workers: workers, Places: [sched.Classes]int{clients, clients, clients}})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var asked, answered, last atomic.Uint64
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			a := &ask{}
			seen := uint64(0)
			for i := 0; !stop.Load(); i++ {
				a.x = float32(c*1000 + i%1000)
				asked.Add(1)
				if err := s.Do(context.Background(), sched.Class(c%int(sched.Classes)), time.Time{}, a); err != nil {
					t.Errorf("a request was lost: %v", err)
					return
				}
				answered.Add(1)
				if a.c != of(a.generation) || a.y != a.x+a.c || a.generation < seen {
					t.Errorf("generation %d after %d answered %v to %v with model %v", a.generation, seen, a.y, a.x, a.c)
					return
				}
				seen = a.generation
				last.Store(seen)
			}
		})
	}
	cycle := func(n int) {
		for i := range n {
			_, now := slot.Load()
			next, err := loadModel(t, rt, files[(now+1)%models], of(now+1), workers)
			if err != nil {
				t.Fatalf("cycle %d: %v", i, err)
			}
			old, _ := slot.Swap(next)
			if err := old.close(); err != nil {
				t.Fatalf("cycle %d: %v", i, err)
			}
			if t.Failed() {
				break
			}
		}
	}
	warm := max(cycles/10, 50) // the allocators settle
	cycle(warm)
	before, start, from := measureFootprint(t), time.Now(), answered.Load()
	cycle(cycles)
	took, requests := time.Since(start), answered.Load()-from
	after := measureFootprint(t)
	stop.Store(true)
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	m, generation := slot.Load()
	if err := m.close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d swaps in %.1f s under %d requests (%.0f a second), %d lost, none answered by another model than it said",
		cycles, took.Seconds(), requests, float64(requests)/took.Seconds(), asked.Load()-answered.Load())
	t.Logf("resident %.1f -> %.1f MiB, goroutines %d -> %d, descriptors %d -> %d", float64(before.residentKiB)/1024, float64(after.residentKiB)/1024,
		before.goroutines, after.goroutines, before.files, after.files)
	if asked.Load() != answered.Load() {
		t.Errorf("%d requests, %d answers", asked.Load(), answered.Load())
	}
	if generation != uint64(1+warm+cycles) || last.Load() < generation-1 {
		t.Errorf("generation %d at the end, the last answer came from %d", generation, last.Load())
	}
	if after.goroutines > before.goroutines || after.files > before.files {
		t.Errorf("grown: %+v -> %+v", before, after)
	}
	const slackKiB = 24 << 10 // allocators and the race detector's shadow breathe; a leaked session of this model is 40 KiB or more
	if after.residentKiB > before.residentKiB+slackKiB {
		t.Errorf("resident memory grew by %d KiB", after.residentKiB-before.residentKiB)
	}
}
