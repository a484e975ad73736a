package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/config"
	"vigil/daemon/core"
)

// deviceStatus is the status of the device and who told it.
type deviceStatus struct {
	Daemon bool   `json:"daemon"` // a running daemon answered; else the device was opened for this
	Socket string `json:"socket"`
	core.Status
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the device is: state, sensors, latencies, fleet",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			s, err := a.status(c.Context(), cfg)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { printStatus(w, s) })
		},
	}
}

func (a *app) status(ctx context.Context, cfg config.Config) (deviceStatus, error) {
	s := deviceStatus{Socket: socketPath(cfg)}
	c, told, err := reach(ctx, cfg)
	if err == nil {
		c.Close()
		s.Daemon, s.Status = true, told
		return s, nil
	}
	if !errors.Is(err, api.ErrNoDaemon) {
		return s, err
	}
	ap, err := a.open(ctx, cfg)
	if err != nil {
		return s, err
	}
	s.Status = ap.Status()
	return s, ap.Close()
}

func printStatus(w io.Writer, s deviceStatus) {
	fmt.Fprintf(w, "device   %s, vigild %s\n", s.Device, s.Version)
	if s.Daemon {
		fmt.Fprintf(w, "daemon   running since %s\n", s.Started.Local().Format("2006-01-02 15:04:05"))
	} else {
		fmt.Fprintf(w, "daemon   not running at %s: sensors and fleet are off\n", s.Socket)
	}
	fmt.Fprintf(w, "state    %s\n", strings.ToUpper(s.State))
	for _, d := range s.Degraded {
		fmt.Fprintf(w, "  because  %s\n", d)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "  note     %s\n", n)
	}
	fmt.Fprintf(w, "TPM      %s\nruntime  %s\npeople   %d\n", s.TPM, orDash(s.Runtime), s.Subjects)
	for _, m := range s.Models {
		fmt.Fprintf(w, "%-8s %s\n", m.Modality, modelText(m))
	}
	fmt.Fprintf(w, "outbox   %d records, %s, %d dropped since the store was made\n", s.Outbox.Records, bytesText(int64(s.Outbox.Bytes)), s.Outbox.Dropped)
	if f := s.Fleet; f != nil {
		fmt.Fprintf(w, "fleet    %s, session %d, %d acknowledged\n", connected(f.Connected), f.Session, f.Acknowledged)
	}
	if b := s.Bus; b != nil {
		fmt.Fprintf(w, "bus      %s, %d readers let in, %d refused\n", b.Socket, b.Given, b.Refused+b.Failed+b.Overloaded)
	}
	printSensors(w, s.Sensors)
	printActuators(w, s.Actuators)
	printWays(w, s.Sensors)
	if len(s.Latency) > 0 {
		fmt.Fprintln(w)
		printLatencies(w, s.Latency)
	}
}

// modelText is a bundle in use in words.
func modelText(m core.ModelStatus) string {
	text := m.ID
	if m.BuiltIn {
		text += " (built in)"
	}
	text = fmt.Sprintf("%s, %d people with %d templates", text, m.Subjects, m.Templates)
	if m.Elder != "" {
		text += fmt.Sprintf("; %d people are known to %s alone", m.Left, m.Elder)
	}
	if p := m.CatchUp; p != nil {
		text += fmt.Sprintf("; templates made again for %d of %d", p.Done, p.People)
	}
	if r := m.LastSwap; r != nil && !r.Done {
		text += fmt.Sprintf("; %s was not taken into use: %s", r.To, r.Reason)
	}
	return text
}

func connected(yes bool) string {
	if yes {
		return "connected"
	}
	return "NOT CONNECTED"
}

func printSensors(w io.Writer, list []core.SensorStatus) {
	if len(list) == 0 {
		return
	}
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{s.Name, s.Driver, s.Modality, s.State, fmt.Sprint(s.Frames), fmt.Sprint(s.Dropped),
			fmt.Sprint(s.Skipped + s.Malformed), fmt.Sprint(s.Stale), fmt.Sprint(s.Falls), copies(s), s.Guidance, s.Reason})
	}
	fmt.Fprintln(w)
	defer printPairs(w, list)
	table(w, []string{"SENSOR", "DRIVER", "SEES", "STATE", "FRAMES", "DROPPED", "BROKEN", "LATE", "FALLS", "COPIES", "GUIDANCE", "REASON"}, rows)
}

// printPairs shows which cameras belong together.
func printPairs(w io.Writer, list []core.SensorStatus) {
	for i := range list {
		if p := list[i].Pair; p != nil {
			fmt.Fprintf(w, "%s is paired with %s: %d frames of either had no partner\n", list[i].Name, p.Sensor, p.Unmatched)
		}
	}
}

// copies is how often the picture of a frame was copied on its way to the models, on average.
func copies(s core.SensorStatus) string {
	if s.Frames == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2g", float64(s.Copies)/float64(s.Frames))
}

// printWays shows how long after their capture the frames of each sensor were how far.
func printWays(w io.Writer, list []core.SensorStatus) {
	var rows [][]string
	for i := range list {
		s := &list[i]
		for _, l := range s.Way {
			rows = append(rows, []string{s.Name, l.Stage, fmt.Sprint(l.Count), fmt.Sprintf("%.2f", l.P50), fmt.Sprintf("%.2f", l.P95),
				fmt.Sprintf("%.2f", l.P99), fmt.Sprintf("%.2f", l.Max)})
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w, "\nfrom the capture of a frame to")
	table(w, []string{"SENSOR", "PLACE", "COUNT", "P50 ms", "P95 ms", "P99 ms", "MAX ms"}, rows)
}

func printActuators(w io.Writer, list []core.ActuatorStatus) {
	if len(list) == 0 {
		return
	}
	var rows [][]string
	for _, a := range list {
		last := "-"
		if !a.Last.IsZero() {
			last = a.Last.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{a.Name, a.Driver, a.Sensor, orDash(a.Intent), a.State, fmt.Sprint(a.Granted), fmt.Sprint(a.Refused),
			fmt.Sprint(a.Failed), last, a.Reason})
	}
	fmt.Fprintln(w)
	table(w, []string{"ACTUATOR", "DRIVER", "SENSOR", "INTENT", "STATE", "GRANTED", "REFUSED", "FAILED", "LAST", "REASON"}, rows)
}

func printLatencies(w io.Writer, list []core.Latency) {
	var rows [][]string
	for _, l := range list {
		rows = append(rows, []string{l.Stage, fmt.Sprint(l.Count), fmt.Sprintf("%.2f", l.P50), fmt.Sprintf("%.2f", l.P95),
			fmt.Sprintf("%.2f", l.P99), fmt.Sprintf("%.2f", l.Max), fmt.Sprint(l.Late)})
	}
	table(w, []string{"STAGE", "COUNT", "P50 ms", "P95 ms", "P99 ms", "MAX ms", "LATE"}, rows)
}
