// Command api drives the local interface of a real daemon with third-party tools: openapi-spec-validator judges the document,
// Schemathesis sends what fits it and what does not, over TLS, and tritonclient runs a model. It provisions a device on a
// software TPM in a temporary folder and removes it at the end.
//
// It fails when a tool finds something, when the daemon did not outlive it, or when the daemon's own figures know a 5xx other
// than 503. Run it by `make api-fuzz`, which installs the tools.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.vigild, "vigild", "bin/vigild", "the binary")
	flag.StringVar(&o.tools, "tools", ".cache/api/venv/bin", "folder of schemathesis, openapi-spec-validator and python")
	flag.StringVar(&o.data, "data", os.Getenv("VIGIL_DATA"), "real models and pictures; without, only the models in the binary are there")
	flag.DurationVar(&o.time, "time", 2*time.Minute, "for Schemathesis")
	flag.Int64Var(&o.seed, "seed", 1, "of Schemathesis")
	flag.BoolVar(&o.verbose, "v", false, "show the daemon's log")
	flag.Parse()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

type options struct {
	vigild, tools, data string
	time                time.Duration
	seed                int64
	verbose             bool
}

// tool is how a third-party tool is run, and what is said of it.
type tool struct {
	what string
	name string
	args []string
	env  []string
}

func run(ctx context.Context, o *options) (err error) {
	d, err := newDevice(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	url := "https://" + d.address
	st := func(seconds int, cert string, extra ...string) []string {
		return append([]string{"--config-file", "bench/api/schemathesis.toml", "run", url + "/v1/openapi.json",
			"--tls-verify", d.file("ca.pem"), "--request-cert", d.file(cert + ".pem"), "--request-cert-key", d.file(cert + ".key"),
			"--exclude-path", "/v1/events", // it does not end: the tests of daemon/api drive it
			"--max-time", fmt.Sprint(seconds), "--seed", fmt.Sprint(o.seed), "--no-shrink", "--continue-on-failure", "--warnings", "off",
		}, extra...)
	}
	all := max(10, int(o.time.Seconds()))
	failed := 0
	for _, t := range []tool{
		{"is the document valid?", "openapi-spec-validator", []string{d.file("openapi.json")}, nil},
		{"does Triton's client understand /v2?", "python", []string{"bench/api/triton.py", d.address, d.model, d.file("ca.pem"), d.file("operator.pem"), d.file("operator.key")}, nil},
		{"is a client refused that shows no token?", "schemathesis", st(max(5, all/8), "nobody", "--header", "Authorization: Bearer "+d.token, "--checks", "ignored_auth,not_a_server_error,status_code_conformance"), nil},
		{"does the device do what the document says?", "schemathesis", st(all-all/8, "operator", "--exclude-checks", "ignored_auth"), []string{"VIGIL_NO_TOKEN=1"}},
	} {
		fmt.Printf("\n== %s (%s)\n", t.what, t.name)
		if err := d.use(ctx, o, t); err != nil {
			fmt.Printf("%s: %v\n", t.name, err)
			failed++
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := d.figures(ctx); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d tools found something", failed)
	}
	return nil
}

// use runs a tool, with time beyond its own limit.
func (d *device) use(ctx context.Context, o *options, t tool) error {
	ctx, cancel := context.WithTimeout(ctx, o.time+2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(o.tools, t.name), t.args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "NO_COLOR=1", "SCHEMATHESIS_REPORT=0", "COLUMNS=120")
	cmd.Env = append(cmd.Env, t.env...)
	return cmd.Run()
}

// requests is a line of the daemon's figures.
var requests = regexp.MustCompile(`^vigil_http_requests_total\{.*status="(\d+)"\} (\S+)$`)

// figures prints what the daemon counted, and fails for a 5xx that is not declared.
func (d *device) figures(ctx context.Context) error {
	body, err := d.get(ctx, "/v1/metrics")
	if err != nil {
		return fmt.Errorf("the daemon did not outlive it: %w", err)
	}
	total := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if m := requests.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			n, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return fmt.Errorf("the daemon's figures: %q: %w", line, err)
			}
			total[m[1]] += n
		}
	}
	memory, err := d.peakMemory()
	if err != nil {
		return err
	}
	sum, bad := 0.0, 0.0
	fmt.Printf("\n== what the daemon counted\n")
	for status := 100; status < 600; status++ {
		n := total[fmt.Sprint(status)]
		if n == 0 {
			continue
		}
		fmt.Printf("%d %-28s %8.0f\n", status, http.StatusText(status), n)
		sum += n
		if status >= 500 && status != http.StatusServiceUnavailable {
			bad += n
		}
	}
	fmt.Printf("all %-28s %8.0f\n5xx other than 503 %23.0f\npeak memory of the daemon %16s\n", "", sum, bad, memory)
	if bad > 0 {
		return fmt.Errorf("%.0f answers were 5xx other than 503", bad)
	}
	return nil
}

// peakMemory is what the kernel says of the daemon.
func (d *device) peakMemory() (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", d.daemon.Process.Pid))
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if text, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			return strings.TrimSpace(text), nil
		}
	}
	return "", errors.New("the kernel does not say how much memory the daemon took")
}

// get asks the daemon.
func (d *device) get(ctx context.Context, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+d.address+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

// firstModel is a model that the device serves under /v2.
func (d *device) firstModel(ctx context.Context) (string, error) {
	body, err := d.get(ctx, "/v1/models")
	if err != nil {
		return "", err
	}
	var list []struct {
		ID      string `json:"id"`
		InUse   bool   `json:"in_use"`
		Choices []struct {
			Stage string `json:"stage"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return "", err
	}
	for _, m := range list {
		if m.InUse && len(m.Choices) > 0 {
			return m.ID + "." + m.Choices[len(m.Choices)-1].Stage, nil
		}
	}
	return "", errors.New("the device uses no model")
}
