package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/infer/chain"
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
		Long: "Look at the configuration, the machine, the device and the way to the broker, and say of each part\n" +
			"whether it is good and how to mend it. Nothing is changed. The exit code is 4 if something is bad.",
		Args: exactly(),
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
		list[0].Detail += "\n`vigild config` prints one to start from"
		cfg = config.Default()
	}
	list = append(list, clockFinding(time.Now()), memoryFinding(), diskFinding(cfg.StateDir))
	runtime := runtimeFinding(cfg)
	list = append(append(list, runtime), runtimeChain(cfg)...)
	list = append(list, a.deviceFindings(ctx, cfg, runtime.State == good)...)
	return append(list, brokerFinding(ctx, cfg))
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
	at := dir
	var st unix.Statfs_t
	err := unix.Statfs(at, &st)
	for errors.Is(err, fs.ErrNotExist) && at != "/" { // not provisioned yet: the disk it would lie on
		at = filepath.Dir(at)
		err = unix.Statfs(at, &st)
	}
	if err != nil {
		return finding{"disk", unknown, fmt.Sprintf("%s: %v", at, err)}
	}
	free := int64(st.Bavail) * st.Bsize
	if free < leastFree {
		return finding{"disk", bad, fmt.Sprintf("%s has %s free: make room, decisions that cannot be recorded do not count", at, bytesText(free))}
	}
	return finding{"disk", good, fmt.Sprintf("%s has %s free", at, bytesText(free))}
}

func runtimeFinding(cfg config.Config) finding {
	rt, err := ort.Open(ort.Options{Library: cfg.Runtime.Library, Threads: 1})
	if err != nil {
		return finding{"runtime", bad, err.Error()}
	}
	return verdict("runtime", rt.Name()+"; "+core.KernelsText(cfg), rt.Close())
}

// runtimeChain says of every runtime that is faster than the one that is always there whether it could be used, and what
// the driver shows.
func runtimeChain(cfg config.Config) (list []finding) {
	of := func(part string, state chain.State, reason string) finding {
		return finding{part, map[chain.State]string{chain.Yes: good, chain.No: note, chain.DontKnow: unknown}[state], reason}
	}
	verdicts, device := core.AskRuntimes(cfg)
	for _, v := range verdicts {
		if v.Runtime != chain.ORTCPU { // it is the runtime's own finding
			list = append(list, of(v.Runtime, v.State, v.Reason))
		}
	}
	return append(list, of("cuda", device.State, device.Reason))
}

// deviceFindings ask the running daemon, or try the TPM, the identity, the store and the models themselves.
func (a *app) deviceFindings(ctx context.Context, cfg config.Config, runtime bool) []finding {
	cl, s, err := reach(ctx, cfg)
	if err == nil {
		cl.Close()
		list := []finding{{"daemon", good, "running, " + s.State}}
		return append(list, statusFindings(s)...)
	}
	if !errors.Is(err, api.ErrNoDaemon) {
		return []finding{{"daemon", bad, err.Error()}}
	}
	list := []finding{{"daemon", note, fmt.Sprintf("not running at %s: `%s` starts it", socketPath(cfg), a.command("run"))}}
	d, err := core.OpenDevice(ctx, cfg)
	if err != nil {
		return append(list, finding{"device", bad, err.Error()})
	}
	if err := d.Close(); err != nil {
		return append(list, finding{"device", bad, err.Error()})
	}
	if _, err := os.Stat(core.StorePath(cfg.StateDir)); errors.Is(err, fs.ErrNotExist) {
		return append(list, finding{"device", good, d.DeviceID()}, finding{"store", note, "none yet: it is made when it is needed"},
			finding{"model", bad, core.ErrNoModel.Error()})
	}
	if !runtime {
		return append(list, finding{"device", good, d.DeviceID()}, finding{"store", unknown, "see runtime; `vigild check` needs none"})
	}
	return append(list, a.openFindings(ctx, cfg)...)
}

// openFindings opens the whole appliance.
func (a *app) openFindings(ctx context.Context, cfg config.Config) []finding {
	ap, err := a.open(ctx, cfg)
	if err != nil {
		return []finding{{"device", bad, err.Error()}}
	}
	s := ap.Status()
	if err := ap.Close(); err != nil {
		return []finding{{"device", bad, err.Error()}}
	}
	return statusFindings(s)
}

// statusFindings are what a status says.
func statusFindings(s core.Status) []finding {
	list := []finding{{"device", good, s.Device}, {"TPM", good, s.TPM},
		{"store", good, fmt.Sprintf("%d people", s.Subjects)}}
	for _, m := range s.Models {
		list = append(list, finding{m.Modality, good, modelText(m)})
	}
	for _, d := range s.Degraded {
		part, reason, _ := strings.Cut(d, ": ")
		list = append(list, finding{part, bad, reason})
	}
	for _, n := range s.Notes {
		part, text, _ := strings.Cut(n, ": ")
		list = append(list, finding{part, note, text})
	}
	return list
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
