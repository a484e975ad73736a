package kserve

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"vigil/infer"
	"vigil/infer/infertest/fake"
)

// source plays one model "b.s" that adds its inputs and doubles the first.
type source struct {
	rt   *fake.Runtime
	mu   sync.Mutex
	gone bool
	err  error
}

var errGone = errors.New("no such model")

func (s *source) Stage(name string) (Stage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != "b.s" || s.gone {
		return Stage{Name: name}, errGone
	}
	two := func(name string) infer.Tensor { return infer.Tensor{Name: name, Type: "float32", Shape: []int64{1, 2}} }
	return Stage{Name: name, Inputs: []infer.Tensor{two("a"), two("b")}, Outputs: []infer.Tensor{two("sum"), two("double")}, Runtime: "fake"}, nil
}

func (s *source) Load(ctx context.Context, name string) (infer.Engine, error) {
	st, err := s.Stage(name)
	if err = errors.Join(err, s.err); err != nil {
		return nil, err
	}
	return s.rt.Load(ctx, []byte("adder"), st.Inputs, st.Outputs)
}

func newServer(t testing.TB) (*Server, *source) {
	t.Helper()
	src := &source{rt: fake.New()}
	src.rt.Play("adder", func(in, out [][]float32) error {
		for i := range in[0] {
			out[0][i], out[1][i] = in[0][i]+in[1][i], 2*in[0][i]
		}
		return nil
	})
	s := New(src)
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		if n := src.rt.Leaked(); n != 0 {
			t.Errorf("%d engines and tensors were left open", n)
		}
	})
	return s, src
}

const inJSON = `{"id":"7","inputs":[{"name":"b","shape":[1,2],"datatype":"FP32","data":[10,20]},{"name":"a","shape":[1,2],"datatype":"FP32","data":[[1,2]]}]}`

// floats are values in binary.
func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

const inBinary = `{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},{"name":"b","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],` +
	`"outputs":[{"name":"double","parameters":{"binary_data":true}},{"name":"sum"}]}`

func TestInfer(t *testing.T) {
	s, src := newServer(t)
	body, n, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1)
	want := `{"model_name":"b.s","model_version":"1","id":"7","outputs":[{"name":"sum","datatype":"FP32","shape":[1,2],"data":[11,22]},` +
		`{"name":"double","datatype":"FP32","shape":[1,2],"data":[2,4]}]}`
	if err != nil || n != -1 || string(body) != want {
		t.Errorf("JSON: %s, %d, %v", body, n, err)
	}
	data := append([]byte(inBinary), floats(1, 2, 10, 20)...)
	body, n, err = s.Infer(t.Context(), "b.s", data, len(inBinary))
	if err != nil || n < 0 || string(body[n:]) != string(floats(2, 4)) {
		t.Fatalf("binary: %q, %d, %v", body, n, err)
	}
	want = `{"model_name":"b.s","model_version":"1","outputs":[{"name":"sum","datatype":"FP32","shape":[1,2],"data":[11,22]},` +
		`{"name":"double","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}`
	if string(body[:n]) != want {
		t.Errorf("binary: %s", body[:n])
	}
	all := strings.Replace(inJSON, `"id":"7"`, `"parameters":{"binary_data_output":true}`, 1)
	if body, n, err = s.Infer(t.Context(), "b.s", []byte(all), len(all)); err != nil || n < 0 || string(body[n:]) != string(floats(11, 22, 2, 4)) {
		t.Errorf("all in binary: %q, %d, %v", body, n, err)
	}
	if got := src.rt.Runs("adder"); got != 3 {
		t.Errorf("%d runs", got)
	}
	m, err := s.Metadata("b.s")
	if err != nil || m.Platform != "fake" || len(m.Inputs) != 2 || m.Inputs[0].Datatype != "FP32" || m.Outputs[1].Name != "double" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestBadRequests(t *testing.T) {
	s, _ := newServer(t)
	for _, c := range []struct {
		old, new string
		header   int
		want     string
	}{
		{inJSON, `{`, -1, "JSON"},
		{inJSON, `{}`, -1, "at least one input"},
		{inJSON, inJSON + "x", -1, "JSON"},
		{inJSON, inJSON, 9999, "the body has"},
		{inJSON, inJSON + "1234", len(inJSON), "4 bytes behind"},
		{`"FP32","data":[10,20]`, `"INT8","data":[10,20]`, -1, `datatype "INT8"`},
		{`[1,2],"datatype":"FP32","data":[10`, `[2,1],"datatype":"FP32","data":[10`, -1, "shape [2 1]"},
		{`"name":"b"`, `"name":"c"`, -1, `"b" is missing`},
		{`"name":"b"`, `"name":"a"`, -1, `"b" is missing`},
		{`,"data":[10,20]`, ``, -1, "has no data"},
		{`[10,20]`, `[10]`, -1, "1 numbers"},
		{`[10,20]`, `[10,20,30]`, -1, "not a list of 2"},
		{`[10,20]`, `10`, -1, "not a list of 2"},
		{`[10,20]`, `["10",20]`, -1, "is no number"},
		{`[10,20]`, `[null,20]`, -1, "is no number"},
		{`[10,20]`, `[1e39,20]`, -1, "not a list of 2"},
		{`[10,20]`, `{"a":[10,20]}`, -1, "an object"},
		{`[10,20]`, `[[[10,20]]]`, -1, "deeper"},
		{`"data":[10,20]`, `"data":[10,20],"parameters":{"binary_data_size":8}`, -1, "both"},
		{`"data":[10,20]`, `"parameters":{"binary_data_size":8}`, -1, "0 are left"},
		{`"data":[10,20]`, `"parameters":{"binary_data_size":-1}`, -1, "0 are left"},
		{`"id":"7"`, `"outputs":[{"name":"x"}]`, -1, `output "x"`},
		{`"id":"7"`, `"outputs":[{"name":"sum"},{"name":"sum"}]`, -1, "asked for twice"},
		{`{"name":"b","shape":[1,2],"datatype":"FP32","data":[10,20]},`, ``, -1, "1 inputs, the model has 2"},
	} {
		if !strings.Contains(inJSON, c.old) {
			t.Fatalf("%s is not in the request", c.old)
		}
		_, _, err := s.Infer(t.Context(), "b.s", []byte(strings.Replace(inJSON, c.old, c.new, 1)), c.header)
		if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v, want %q", c.new, c.old, err, c.want)
		}
	}
	short := strings.Replace(inBinary, `"binary_data_size":8`, `"binary_data_size":4`, 1)
	if _, _, err := s.Infer(t.Context(), "b.s", append([]byte(short), floats(1, 10, 20)...), len(short)); !errors.Is(err, ErrRequest) {
		t.Errorf("half a tensor: %v", err)
	}
	inf := strings.ReplaceAll(inBinary, `"parameters":{"binary_data":true}`, `"parameters":{"binary_data":false}`)
	if _, _, err := s.Infer(t.Context(), "b.s", append([]byte(inf), floats(float32(math.Inf(1)), 0, 0, 0)...), len(inf)); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), "in binary") {
		t.Errorf("infinity in JSON: %v", err)
	}
	if _, _, err := s.Infer(t.Context(), "x.y", []byte(inJSON), -1); !errors.Is(err, errGone) {
		t.Errorf("no such model: %v", err)
	}
}

// TestBusy holds every set of tensors and fills the queue.
func TestBusy(t *testing.T) {
	s, src := newServer(t)
	hold, inside := make(chan struct{}), make(chan struct{}, Parallel+Waiting+1)
	src.rt.Play("adder", func(_, _ [][]float32) error { inside <- struct{}{}; <-hold; return nil })
	var wg sync.WaitGroup
	for range Parallel {
		wg.Go(func() {
			if _, _, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1); err != nil {
				t.Error(err)
			}
		})
		<-inside
	}
	ctx, leave := context.WithCancel(t.Context())
	for range Waiting {
		wg.Go(func() {
			if _, _, err := s.Infer(ctx, "b.s", []byte(inJSON), -1); !errors.Is(err, context.Canceled) {
				t.Errorf("a request that was given up: %v", err)
			}
		})
	}
	m := s.loaded["b.s"]
	for m.waiting.Load() < Parallel+Waiting {
		select {
		case <-inside:
			t.Fatal("more run than may")
		default:
		}
	}
	if _, _, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	leave()
	close(hold)
	wg.Wait()
	if n := m.waiting.Load(); n != 0 {
		t.Errorf("%d wait for ever", n)
	}
}

func TestAModelThatIsGoneIsUnloaded(t *testing.T) {
	s, src := newServer(t)
	src.err = errors.New("no memory")
	if _, _, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1); !errors.Is(err, src.err) {
		t.Errorf("a model that does not load: %v", err)
	}
	src.err = nil
	if _, _, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1); err != nil {
		t.Errorf("when it loads: %v", err)
	}
	src.gone = true
	if _, err := s.Metadata("b.s"); !errors.Is(err, errGone) {
		t.Error(err)
	}
	s.ending.Wait()
	if n := src.rt.Leaked(); n != 0 {
		t.Errorf("%d engines and tensors are still there", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	src.gone = false
	if _, _, err := s.Infer(t.Context(), "b.s", []byte(inJSON), -1); !errors.Is(err, ErrBusy) {
		t.Errorf("after the end: %v", err)
	}
}

// FuzzInfer: whatever comes, the answer is one or ErrRequest, and what is answered can be read again.
func FuzzInfer(f *testing.F) {
	f.Add([]byte(inJSON), -1)
	f.Add(append([]byte(inBinary), floats(1, 2, 10, 20)...), len(inBinary))
	f.Add([]byte(strings.Replace(inJSON, `"id":"7"`, `"parameters":{"binary_data_output":true}`, 1)), -1)
	f.Add([]byte(`{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":9223372036854775807}}]}`), 10)
	f.Add([]byte(strings.Replace(inJSON, `[10,20]`, strings.Repeat("[", 1000), 1)), -1)
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, data []byte, headerLength int) {
		body, n, err := s.Infer(t.Context(), "b.s", data, headerLength)
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		if n < 0 {
			n = len(body)
		}
		var r Response
		if err := json.Unmarshal(body[:n], &r); err != nil || len(r.Outputs) > 2 {
			t.Fatalf("%q: %q, %v", data, body, err)
		}
		behind := 0
		for _, o := range r.Outputs {
			if o.Parameters.BinaryDataSize != nil {
				behind += int(*o.Parameters.BinaryDataSize)
			}
		}
		if behind != len(body)-n {
			t.Errorf("%d bytes behind the JSON, it says %d", len(body)-n, behind)
		}
	})
}
