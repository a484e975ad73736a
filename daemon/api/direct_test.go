package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// ask sends a request to a handler in this process.
func ask(t *testing.T, h http.HandlerFunc) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://vigild/", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := direct{h}.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestDirectPassesOnWhatTheHandlerWrites(t *testing.T) {
	var returned atomic.Bool
	resp := ask(t, func(w http.ResponseWriter, r *http.Request) {
		defer returned.Store(true)
		w.Header().Set("X", "early")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X", "late")
		_, _ = io.Copy(w, r.Body)
	})
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "body" || resp.StatusCode != http.StatusTeapot || resp.Header.Get("X") != "early" {
		t.Errorf("%q, %v, %+v", text, err, resp)
	}
	if !returned.Load() {
		t.Error("the body ended before the handler returned")
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	silent := ask(t, func(http.ResponseWriter, *http.Request) {})
	defer silent.Body.Close()
	if text, err := io.ReadAll(silent.Body); err != nil || len(text) != 0 || silent.StatusCode != http.StatusOK {
		t.Errorf("a handler that writes nothing: %q, %v, %d", text, err, silent.StatusCode)
	}
}

// TestDirectEndsInAnErrorWhatWasCutOff: half an answer must not look like a whole one.
func TestDirectEndsInAnErrorWhatWasCutOff(t *testing.T) {
	resp := ask(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); string(text) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", text, err)
	}
}

// TestDirectLetsGoOfAHandlerNobodyReads: closing the body ends a handler that still writes, and waits for it.
func TestDirectLetsGoOfAHandlerNobodyReads(t *testing.T) {
	var failed atomic.Bool
	resp := ask(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			if _, err := io.WriteString(w, "more"); err != nil {
				failed.Store(true)
				return
			}
		}
	})
	if err := resp.Body.Close(); err != nil || !failed.Load() {
		t.Errorf("%v, the handler was told: %v", err, failed.Load())
	}
}
