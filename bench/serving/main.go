// Command serving measures vigild beside FastAPI with uvicorn and onnxruntime: the same models, pictures, people, threads and
// load generator, identification (1:N) over a UNIX socket, in one run. `make bench-serving` runs it on a quiet machine.
//
// The peer stands in bench/serving/app.py as its documentation writes it, and in app_tuned.py with what its users do for
// speed. Load is open loop: requests arrive at random whether answers come or not, and a latency counts from the moment at
// which the request was due. All servers are up all the time and take turns under load, so that what the machine does
// meanwhile hits all alike. vigild makes every decision durable, audited and encrypted before it answers; the peer does not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"vigil/bench/open"
)

const python = ".cache/bench/serving/venv/bin/python"

type options struct {
	capacity            bool
	vigild              string
	precision           string
	json                bool
	people, pictures    int
	rounds              int
	duration, scenarios time.Duration
	deadline            time.Duration
	only                string
}

func main() {
	var o options
	flag.StringVar(&o.vigild, "vigild", "bin/vigild", "our binary")
	flag.StringVar(&o.precision, "precision", shipped, "shipped: vigild runs in 8 bits what `vigild models quantize` makes and its gate lets in, the peer the files as published; fp32 or int8: all run the same file")
	flag.BoolVar(&o.json, "json", false, "print the results as JSON")
	flag.IntVar(&o.people, "people", 300, "people enrolled, one picture each")
	flag.IntVar(&o.pictures, "pictures", 200, "pictures to identify, half of them of strangers")
	flag.BoolVar(&o.capacity, "capacity", false, "only the closed loop, with four requests under way")
	flag.IntVar(&o.rounds, "rounds", 3, "times that every server stands every load")
	flag.DurationVar(&o.duration, "duration", 8*time.Second, "of one load")
	flag.DurationVar(&o.scenarios, "scenarios", 15*time.Second, "of one MLPerf scenario; 0 leaves them out")
	flag.DurationVar(&o.deadline, "deadline", 250*time.Millisecond, "for vigild, which refuses what it cannot answer by then; and the bound of goodput for all")
	flag.StringVar(&o.only, "only", "", "only servers whose name begins so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "serving:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	dir, err := os.MkdirTemp("", "vigil-serving-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w, err := prepareWork(ctx, dir, o)
	if err != nil {
		return err
	}
	servers, err := startAll(ctx, w, o)
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close())
		}
	}()
	if err != nil {
		return err
	}
	r := &report{Precision: w.models.precision, Gates: w.models.gates, People: len(w.people), Cores: runtime.NumCPU(), DurationSeconds: o.duration.Seconds(), Rounds: o.rounds, DeadlineMS: o.deadline.Milliseconds()}
	if err := r.loads(ctx, servers, w, o); err != nil {
		return err
	}
	if o.scenarios > 0 {
		if err := r.scenarios(ctx, servers, w, o); err != nil {
			return err
		}
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return r.print(os.Stdout)
}

// prepareWork picks people and pictures: those of people with several pictures are enrolled with the first and asked for with
// the second, and as many pictures show strangers.
func prepareWork(ctx context.Context, dir string, o *options) (*work, error) {
	w := &work{dir: dir, people: map[string][]string{}}
	var err error
	if w.models, err = prepare(ctx, filepath.Join(dir, "bundle"), o); err != nil {
		return nil, err
	}
	folders, err := filepath.Glob(filepath.Join(open.Data(), "faces", "lfw", "*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(folders)
	var known, strangers []string
	for _, f := range folders {
		list, err := filepath.Glob(filepath.Join(f, "*.jpg"))
		if err != nil {
			return nil, err
		}
		slices.Sort(list)
		switch {
		case len(list) > 1 && len(w.people) < o.people:
			w.people[filepath.Base(f)] = list[:1]
			known = append(known, list[1])
		case len(list) > 0:
			strangers = append(strangers, list[0])
		}
	}
	if len(known) < o.pictures/2 || len(strangers) < o.pictures/2 {
		return nil, fmt.Errorf("%d pictures of known people and %d of strangers below %s are too few: point VIGIL_DATA to the folder of models and pictures", len(known), len(strangers), open.Data())
	}
	for i := range o.pictures / 2 {
		for _, path := range []string{known[i*len(known)/(o.pictures/2)], strangers[i*len(strangers)/(o.pictures/2)]} {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			w.pictures = append(w.pictures, data)
		}
	}
	return w, nil
}

func startAll(ctx context.Context, w *work, o *options) (servers []*server, err error) {
	for _, start := range []struct {
		name string
		do   func() (*server, error)
	}{
		{"vigild", func() (*server, error) { return vigild(ctx, w, o.vigild) }},
		{"FastAPI", func() (*server, error) { return fastAPI(ctx, w, "FastAPI", "app", 1, upload) }},
		{"FastAPI tuned", func() (*server, error) {
			return fastAPI(ctx, w, "FastAPI tuned", "app_tuned", runtime.NumCPU(), plain)
		}},
	} {
		if !strings.HasPrefix(start.name, o.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "starting %s\n", start.name)
		s, err := start.do()
		if err != nil {
			return servers, fmt.Errorf("%s: %w", start.name, err)
		}
		servers = append(servers, s)
	}
	return servers, nil
}
