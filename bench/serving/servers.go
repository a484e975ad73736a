package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vigil/secure/securetest"
)

// server is a target that runs.
type server struct {
	*target
	process *process
	stops   []func() error
}

func (s *server) close() error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i]())
	}
	s.stops = nil
	return errors.Join(errs...)
}

// plain sends a picture as the body itself.
func plain(picture []byte) (body []byte, contentType string) { return picture, "image/jpeg" }

// upload sends a picture as the file of a form.
func upload(picture []byte) (body []byte, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("picture", "picture.jpg")
	if err == nil {
		_, err = part.Write(picture)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes(), w.FormDataContentType()
}

// get asks a server for a page and checks that it is one.
func (t *target) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := t.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, res.Status)
	}
	return err
}

// work is what all servers are given.
type work struct {
	dir      string // for sockets and states
	models   models
	people   map[string][]string // name to pictures
	pictures [][]byte            // to identify
}

// fastAPI starts the peer: app is the module, workers its processes.
func fastAPI(ctx context.Context, w *work, name, app string, workers int, form func([]byte) ([]byte, string)) (_ *server, err error) {
	socket := filepath.Join(w.dir, app+".sock")
	s := &server{target: &target{name: name, client: overUNIX(socket), url: "http://peer/identify", form: form}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	list, err := json.Marshal(w.people)
	if err != nil {
		return nil, err
	}
	people := filepath.Join(w.dir, "people.json")
	if err := os.WriteFile(people, list, 0o600); err != nil {
		return nil, err
	}
	env := []string{"DETECTOR=" + w.models.detector, "EMBEDDER=" + w.models.embedder, "PEOPLE=" + people, fmt.Sprint("THRESHOLD=", w.models.threshold), "PYTHONDONTWRITEBYTECODE=1"}
	args := []string{"-m", "uvicorn", app + ":app", "--app-dir", "bench/serving", "--uds", socket, "--no-access-log", "--log-level", "warning"}
	if workers > 1 {
		args = append(args, "--workers", fmt.Sprint(workers), "--loop", "uvloop", "--http", "httptools")
	}
	if s.process, err = launch(env, python, args...); err != nil {
		return nil, err
	}
	s.stops = append(s.stops, s.process.stop)
	return s, s.process.ready(ctx, func(ctx context.Context) error { return s.get(ctx, "http://peer/ready") })
}

// vigild starts ours: a device with a software TPM, provisioned, with the bundle and the people.
func vigild(ctx context.Context, w *work, binary string) (_ *server, err error) {
	s := &server{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	chip, stop, err := securetest.StartSWTPM(filepath.Join(w.dir, "swtpm"))
	if err != nil {
		return nil, err
	}
	s.stops = append(s.stops, stop)
	conf, socket := filepath.Join(w.dir, "vigild.toml"), filepath.Join(w.dir, "vigild.sock")
	text := fmt.Sprintf("version = 1\nstate_dir = %q\n[tpm]\naddress = %q\n[runtime]\nthreads = 1\n[models]\nfinger = \"off\"\n"+
		"[policy]\nenroll_samples = 1\nenroll_quality = 0.0\nprobe_quality = 0.0\nduplicate_threshold = 0.99\n[api]\nsocket = %q\nrate_per_second = 0.0\n",
		filepath.Join(w.dir, "state"), chip, socket)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"provision"}, {"models", "import", w.models.bundle}} {
		cmd := exec.CommandContext(ctx, binary, append(args, "--config", conf)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("vigild %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	if s.process, err = launch(nil, binary, "run", "--config", conf); err != nil {
		return nil, err
	}
	s.stops = append(s.stops, s.process.stop)
	s.target = &target{name: "vigild", client: overUNIX(socket), url: "http://vigild/v1/identify?modality=face", form: plain}
	if err := s.process.ready(ctx, func(ctx context.Context) error { return s.get(ctx, "http://vigild/v1/health/ready") }); err != nil {
		return nil, err
	}
	return s, s.enroll(ctx, w.people)
}

// enroll takes people in, from their pictures. Those whose picture shows no single face are left out, as the peer leaves them.
func (s *server) enroll(ctx context.Context, people map[string][]string) error {
	refused := 0
	for name, paths := range people {
		q := struct {
			Name     string   `json:"name"`
			Modality string   `json:"modality"`
			Pictures [][]byte `json:"pictures"`
		}{Name: name, Modality: "face"}
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			q.Pictures = append(q.Pictures, data)
		}
		body, err := json.Marshal(q)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://vigild/v1/enroll", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := s.client.Do(req)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			if refused++; refused > len(people)/5 {
				return fmt.Errorf("%d people could not be enrolled, the latest: %s: %s", refused, name, answer)
			}
		}
	}
	return nil
}
