package api

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// direct is a transport without a network: the handler runs in this process. Its answer is streamed, so that a long one
// is never held as a whole; the handler has returned when the body is closed or read to its end.
type direct struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r = r.Clone(r.Context())
		r.Body = http.NoBody
	}
	out, in := io.Pipe()
	w := &answer{header: http.Header{}, status: http.StatusOK, begun: make(chan struct{}), body: in}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Body.Close()
		defer w.finish()
		d.h.ServeHTTP(w, r)
	}()
	<-w.begun
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Header: w.sent, Request: r,
		Body: &answerBody{out, done}, ContentLength: -1,
	}, nil
}

// answer passes on what a handler writes.
type answer struct {
	header http.Header
	sent   http.Header // header as it was when the answer began
	status int
	once   sync.Once
	begun  chan struct{} // closed when status and header are settled
	body   *io.PipeWriter
}

// Header implements http.ResponseWriter.
func (w *answer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *answer) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.begun)
	})
}

// Write implements http.ResponseWriter.
func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// finish ends the answer. A handler that gave it up by http.ErrAbortHandler, as with a network, leaves a body that ends in
// an error; any other panic is a bug and goes on.
func (w *answer) finish() {
	var err error
	if p := recover(); p == http.ErrAbortHandler { //nolint:errorlint // panic passes this very value
		err = io.ErrUnexpectedEOF
	} else if p != nil {
		panic(p)
	}
	w.WriteHeader(http.StatusOK)
	w.body.CloseWithError(err)
}

// answerBody waits for the handler when it is closed.
type answerBody struct {
	*io.PipeReader
	done chan struct{}
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.PipeReader.Read(p)
	if errors.Is(err, io.EOF) {
		<-b.done
	}
	return n, err
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	err := b.PipeReader.Close()
	<-b.done
	return err
}
