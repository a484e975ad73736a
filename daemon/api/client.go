package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"vigil/daemon/core"
	"vigil/store"
)

// Errors of the way to the daemon.
var (
	// ErrNoDaemon: nobody answers at the socket.
	ErrNoDaemon = errors.New("no vigild answers")
	// ErrForbidden: this user may not open the socket.
	ErrForbidden = errors.New("this user may not talk to vigild")
)

// Client calls the local interface. Errors of all methods: *Problem is the other side's answer; ErrNoDaemon and
// ErrForbidden come from a client of Dial only.
type Client struct {
	http  *http.Client
	close func() error // of a handler in this process
}

// Dial returns a client of the daemon behind the socket. It does not connect yet.
func Dial(socket string) *Client {
	t := &http.Transport{
		DialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) },
		MaxIdleConns: 1,
	}
	return &Client{http: &http.Client{Transport: t}}
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, &dialError{fmt.Sprintf("no vigild answers at %s", socket), ErrNoDaemon}
	case errors.Is(err, fs.ErrPermission):
		return nil, &dialError{fmt.Sprintf("this user may not talk to vigild at %s: "+
			"run the command as vigild's user or root, or join the group of the socket", socket), ErrForbidden}
	}
	return conn, err
}

// dialError says in full what its reason says in short.
type dialError struct {
	text   string
	reason error
}

func (e *dialError) Error() string { return e.text }
func (e *dialError) Unwrap() error { return e.reason }

// Direct returns a client that runs the handler in this process, on an appliance that the caller owns.
func Direct(a *core.Appliance) *Client {
	h := newHandler(a, &access{}, slog.New(slog.DiscardHandler), maxBodyBytes)
	return &Client{http: &http.Client{Transport: direct{local(h)}}, close: h.Close}
}

// Close drops idle connections; a client of Direct gives up its enrolments in progress.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	if c.close != nil {
		_ = c.close() // it loaded no model
	}
}

// do sends a request with a JSON body (nil for none) and decodes the answer into out. An error of the other side is a
// *Problem.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	body, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(out)
}

// send sends a request with a JSON body (nil for none) and returns the body of a good answer, which the caller closes.
func (c *Client) send(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	kind := ""
	if in != nil {
		kind = "application/json"
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://vigild"+path, body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, wayError(ctx, err)
	}
	if resp.StatusCode < 400 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	p := &Problem{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(p); err != nil {
		p.Detail = resp.Status
	}
	return nil, p
}

// wayError is why no answer came, without the words of HTTP.
func wayError(ctx context.Context, err error) error {
	var dial *dialError
	if errors.As(err, &dial) {
		return dial
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("vigild ended before it answered (%w): look at its log, and at `vigild status` for what it did", err)
}

// Status asks how the device is.
func (c *Client) Status(ctx context.Context) (s core.Status, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Enroll enrols a person.
func (c *Client) Enroll(ctx context.Context, q EnrollRequest) (e core.Enrolled, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/enroll", q, &e)
	return e, err
}

// Verify compares a picture of a face with one person.
func (c *Client) Verify(ctx context.Context, subject string, picture []byte) (core.Decision, error) {
	return c.VerifyPicture(ctx, MatchRequest{Subject: subject, Picture: picture})
}

// VerifyPicture compares a picture with one person.
func (c *Client) VerifyPicture(ctx context.Context, q MatchRequest) (d core.Decision, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/verify", q, &d)
	return d, err
}

// Identify searches the faces of a picture.
func (c *Client) Identify(ctx context.Context, picture []byte) ([]core.Decision, error) {
	return c.IdentifyPicture(ctx, MatchRequest{Picture: picture})
}

// IdentifyPicture searches the faces of a picture, or its finger.
func (c *Client) IdentifyPicture(ctx context.Context, q MatchRequest) (list []core.Decision, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/identify", q, &list)
	return list, err
}

// Subjects returns everybody, page by page behind the scenes.
func (c *Client) Subjects(ctx context.Context) ([]Subject, error) {
	all := []Subject{}
	for after := ""; ; {
		var page SubjectList
		q := url.Values{"limit": {strconv.Itoa(maxPage)}}
		if after != "" {
			q.Set("after", after)
		}
		if err := c.do(ctx, http.MethodGet, "/v1/subjects?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Subjects...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// DeleteSubject erases a person.
func (c *Client) DeleteSubject(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/subjects/"+url.PathEscape(id), nil, &struct{}{})
}

// Models lists the bundles.
func (c *Client) Models(ctx context.Context) (list []core.ModelInfo, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/models", nil, &list)
	return list, err
}

// Model describes one bundle in full.
func (c *Client) Model(ctx context.Context, id string) (d core.ModelDetail, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/models/"+url.PathEscape(id), nil, &d)
	return d, err
}

// VerifyModel checks the sealed files of a bundle and runs its models once.
func (c *Client) VerifyModel(ctx context.Context, id string) (r core.ModelReport, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/models/"+url.PathEscape(id)+"/verify", nil, &r)
	return r, err
}

// ExportModel writes a bundle to w as a tar, its weights in clear. After an error, what was written is of no use.
func (c *Client) ExportModel(ctx context.Context, id string, w io.Writer) error {
	body, err := c.send(ctx, http.MethodPost, "/v1/models/"+url.PathEscape(id)+"/export", ExportRequest{InClear: true})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return errors.Join(err, body.Close())
}

// ImportModel seals a bundle from a folder or a tar file of the device.
func (c *Client) ImportModel(ctx context.Context, q ImportRequest) (id string, err error) {
	var out Imported
	err = c.do(ctx, http.MethodPost, "/v1/models", q, &out)
	return out.ID, err
}

// UseModel takes an imported bundle into use beside the work. An exchange that was dropped is an error, and says why.
func (c *Client) UseModel(ctx context.Context, id string) (r core.SwapReport, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/models/"+url.PathEscape(id)+"/use", nil, &r)
	return r, err
}

// RemoveModel deletes a bundle that is not in use.
func (c *Client) RemoveModel(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/models/"+url.PathEscape(id), nil, &struct{}{})
}

// Check verifies the store.
func (c *Client) Check(ctx context.Context) (r store.Report, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/check", nil, &r)
	return r, err
}

// CreateToken makes a token.
func (c *Client) CreateToken(ctx context.Context, q TokenRequest) (t NewToken, err error) {
	err = c.do(ctx, http.MethodPost, "/v1/tokens", q, &t)
	return t, err
}

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) (list []core.Token, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/tokens", nil, &list)
	return list, err
}

// RevokeToken makes a token useless.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil, &struct{}{})
}
