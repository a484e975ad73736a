package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/infer/ort"
	"vigil/secure/mem"
)

// finding is one line of the doctor.
type finding struct {
	Part   string `json:"part"`
	State  string `json:"state"` // good, note, bad, unknown
	Detail string `json:"detail"`
}

const (
	good    = "good"
	note    = "note"
	bad     = "bad"
	unknown = "unknown"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look at this machine and say what is missing and how to mend it",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			list := a.examine(c.Context())
			worst := false
			err := a.print(list, func(w io.Writer) {
				var rows [][]string
				for _, f := range list {
					rows = append(rows, []string{f.State, f.Part, f.Detail})
				}
				table(w, []string{"STATE", "PART", "DETAIL"}, rows)
			})
			for _, f := range list {
				worst = worst || f.State == bad
			}
			if err == nil && worst {
				return &codeError{code: exitProblem}
			}
			return err
		},
	}
}

func (a *app) examine(ctx context.Context) []finding {
	cfg, err := a.load()
	list := []finding{verdict("configuration", a.configPath, err)}
	if err != nil {
		cfg = config.Default()
	}
	list = append(list, clockFinding(time.Now()), memoryFinding(), diskFinding(cfg.StateDir), runtimeFinding(cfg),
		finding{"tensorrt", note, "not part of this build (tag tensorrt)"}, finding{"cuda", note, "not part of this build (tag cuda)"})
	return append(append(list, a.deviceFindings(ctx, cfg)...), brokerFinding(ctx, cfg))
}

// verdict is good with a detail, or bad with an error.
func verdict(part, detail string, err error) finding {
	if err != nil {
		return finding{part, bad, err.Error()}
	}
	return finding{part, good, detail}
}

// buildYear is the year before which no clock can be right.
const buildYear = 2026

func clockFinding(now time.Time) finding {
	if now.Year() < buildYear {
		return finding{"clock", bad, fmt.Sprintf("says %s: set the time (NTP), certificates and commands depend on it", now.UTC().Format(time.RFC3339))}
	}
	return finding{"clock", good, now.UTC().Format(time.RFC3339)}
}

func memoryFinding() finding {
	const probeBytes = 8 << 20
	b, err := mem.New(probeBytes)
	if err != nil {
		return finding{"locked memory", bad, err.Error()}
	}
	return verdict("locked memory", mem.Backend()+", 8 MiB could be locked", b.Close())
}

// leastFree is the disk space below which the store may soon be unable to grow.
const leastFree = 256 << 20

func diskFinding(dir string) finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return finding{"disk", unknown, fmt.Sprintf("%s: %v", dir, err)}
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if free < leastFree {
		return finding{"disk", bad, fmt.Sprintf("%s has %s free: make room, decisions that cannot be recorded do not count", dir, bytesText(free))}
	}
	return finding{"disk", good, fmt.Sprintf("%s has %s free", dir, bytesText(free))}
}

func runtimeFinding(cfg config.Config) finding {
	rt, err := ort.Open(ort.Options{Library: cfg.Runtime.Library, Threads: 1})
	if err != nil {
		return finding{"runtime", bad, err.Error()}
	}
	return verdict("runtime", rt.Name(), rt.Close())
}

// deviceFindings ask the running daemon, or try the TPM, the identity and the models themselves.
func (a *app) deviceFindings(ctx context.Context, cfg config.Config) []finding {
	cl := api.Dial(socketPath(cfg))
	defer cl.Close()
	if s, err := cl.Status(ctx); err == nil {
		list := []finding{{"daemon", good, "running, " + s.State}, {"TPM", good, s.TPM}, {"model", good, orDash(s.Model)}}
		for _, d := range s.Degraded {
			list = append(list, finding{"daemon", bad, d})
		}
		for _, n := range s.Notes {
			list = append(list, finding{"daemon", note, n})
		}
		return list
	}
	list := []finding{{"daemon", note, "not running at " + socketPath(cfg)}}
	cfg.Log.Level = "error"
	ap, err := core.Open(ctx, cfg, core.Options{Logger: a.logger(cfg.Log)})
	if err != nil {
		return append(list, finding{"device", bad, err.Error()})
	}
	s := ap.Status()
	list = append(list, finding{"TPM", good, s.TPM}, finding{"device", good, s.Device})
	if s.Model == "" {
		list = append(list, finding{"model", bad, core.ErrNoModel.Error()})
	} else {
		list = append(list, finding{"model", good, s.Model})
	}
	for _, n := range s.Notes {
		list = append(list, finding{"device", note, n})
	}
	return append(list, verdict("store", fmt.Sprintf("%d people, %d templates", s.Subjects, s.Templates), ap.Close()))
}

func brokerFinding(ctx context.Context, cfg config.Config) finding {
	if cfg.Fleet.Broker == "" {
		return finding{"fleet", note, "no fleet.broker in the configuration: this device stands alone"}
	}
	for _, f := range append([]string{cfg.Fleet.CA, cfg.Fleet.Certificate, cfg.Fleet.ManagementKey}, cfg.Fleet.CommandKeys...) {
		if _, err := os.Stat(f); err != nil {
			return finding{"fleet", bad, err.Error()}
		}
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", cfg.Fleet.Broker)
	if err != nil {
		return finding{"fleet", bad, fmt.Sprintf("broker %s cannot be reached: %v; decisions wait in the outbox", cfg.Fleet.Broker, err)}
	}
	return verdict("fleet", "broker "+cfg.Fleet.Broker+" can be reached", errors.Join(conn.Close()))
}
