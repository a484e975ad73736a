package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vigil/daemon/core"
	"vigil/daemon/daemontest"
	"vigil/infer/infertest/fake"
	"vigil/infer/trt"
)

// waiting is a builder that does not go on until a test has seen its first step.
type waiting struct {
	seen   chan struct{}
	cancel bool // wait for the context instead
	ended  chan struct{}
}

func (w *waiting) Library(context.Context, string) (trt.Library, error) {
	return trt.Library{Path: "played", Version: 100300, Generation: "10", Parser: "played"}, nil
}

func (w *waiting) Build(ctx context.Context, _ trt.Order, model []byte, alloc trt.Alloc, step func(trt.Step)) (trt.Memory, trt.Built, error) {
	step(trt.Step{Phase: "parse", Steps: 2})
	if w.cancel {
		<-ctx.Done()
		close(w.ended)
		return nil, trt.Built{}, fmt.Errorf("%w: %w", core.ErrBuild, context.Cause(ctx))
	}
	select {
	case <-w.seen:
	case <-ctx.Done():
		return nil, trt.Built{}, ctx.Err()
	}
	m, err := alloc(len(model))
	if err != nil {
		return nil, trt.Built{}, err
	}
	copy(m.Bytes(), model)
	l, _ := w.Library(ctx, "")
	return m, trt.Built{Library: l, Bytes: int64(len(model))}, nil
}

// builds opens a device with the builder and a server before it.
func builds(t *testing.T, b core.EngineBuilder) (remote, direct *Client) {
	t.Helper()
	rt := fake.New()
	d := daemontest.NewFake(t, rt, fake.Manifest("fake-a", false))
	a, err := core.Open(t.Context(), d.Config, core.Options{Logger: quiet(), Runtime: rt, Builder: b})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	s, err := Serve(t.Context(), socket, a, quiet())
	if err != nil {
		t.Fatal(err)
	}
	remote, direct = Dial(socket), Direct(a)
	t.Cleanup(func() {
		remote.Close()
		if err := errors.Join(s.Close(), a.Close()); err != nil {
			t.Error(err)
		}
	})
	return remote, direct
}

// TestBuildStreams: progress is there before the build is done, with and without a network, and then the report.
func TestBuildStreams(t *testing.T) {
	b := &waiting{seen: make(chan struct{}, 4)}
	remote, direct := builds(t, b)
	q := BuildRequest{Runtime: core.RuntimeTensorRT}
	for i, c := range []*Client{remote, direct} {
		var states []string
		r, err := c.BuildModel(t.Context(), "fake-a", q, func(p core.BuildProgress) {
			if p.Step != nil {
				b.seen <- struct{}{} // the builder waits for this
			}
			states = append(states, p.State)
		})
		if err != nil || !r.Good || len(r.Engines) != 2 || r.Name != "TensorRT 10.3.0" {
			t.Fatalf("%+v, %v", r, err)
		}
		want := []string{"building", "building", "built", "building", "building", "built"}
		if i == 1 { // the second finds what the first built
			want = []string{"found", "found"}
		}
		if !slices.Equal(states, want) {
			t.Errorf("client %d saw %q", i, states)
		}
	}
	for _, c := range []*Client{remote, direct} {
		var p *Problem
		if _, err := c.BuildModel(t.Context(), "nothing", q, nil); !errors.As(err, &p) || p.Code != "no_model_bundle" {
			t.Errorf("no bundle: %v", err)
		}
		if _, err := c.BuildModel(t.Context(), "fake-a", BuildRequest{Runtime: "other"}, nil); !errors.As(err, &p) || p.Code != "bad_request" {
			t.Errorf("another runtime: %v", err)
		}
	}
}

// TestAClientThatLeavesEndsTheBuild, and while it is there nobody else builds.
func TestAClientThatLeavesEndsTheBuild(t *testing.T) {
	b := &waiting{cancel: true, ended: make(chan struct{})}
	remote, direct := builds(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := remote.BuildModel(ctx, "fake-a", BuildRequest{Runtime: core.RuntimeTensorRT}, func(p core.BuildProgress) {
		if p.Step == nil {
			return
		}
		var busy *Problem
		if _, err := direct.BuildModel(t.Context(), "fake-a", BuildRequest{Runtime: core.RuntimeTensorRT}, nil); !errors.As(err, &busy) || busy.Code != "building" {
			t.Errorf("a second build at the same time: %v", err)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-b.ended
}

// TestNoBuilderIsAProblem: a program without TensorRT says so, with a code.
func TestNoBuilderIsAProblem(t *testing.T) {
	remote, _ := builds(t, nil)
	var p *Problem
	if _, err := remote.BuildModel(t.Context(), "fake-a", BuildRequest{Runtime: core.RuntimeTensorRT}, nil); !errors.As(err, &p) ||
		p.Code != "no_builder" || p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "tag tensorrt") {
		t.Errorf("%+v, %v", p, err)
	}
}
