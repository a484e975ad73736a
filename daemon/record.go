package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/core"
)

// recordOptions are the flags of `vigild record`.
type recordOptions struct {
	core.Recording
	seconds int
	out     string
}

// maxRecordSeconds bounds one recording.
const maxRecordSeconds = 24 * 3600

func (a *app) recordCommand() *cobra.Command {
	var o recordOptions
	c := &cobra.Command{
		Use:   "record SENSOR --consent WORDS --expires TIME --seconds N -o FILE",
		Short: "Record what a sensor sees, with its timing, encrypted, for as long as was agreed",
		Long: "Record a sensor, frame by frame as its driver gives them, to FILE" + core.SessionExt + ". It is encrypted with a key of\n" +
			"this device and can be played on this device only: name the file as the path of a sensor with the driver\n" +
			"\"replay\". It says who consented, and is not played after it has expired; delete it then.\n" +
			"The recording is audited. A device has one reader: stop the daemon first.",
		Args: exactly("SENSOR"),
		RunE: func(c *cobra.Command, args []string) error {
			o.Sensor, o.For = args[0], time.Duration(o.seconds)*time.Second
			if err := o.check(); err != nil {
				return usageError(c, "%w", err)
			}
			return a.record(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Consent, "consent", "", "who agreed to be recorded, and to what")
	f.DurationVar(&o.Expires, "expires", 0, "when it must no longer be played, from now: such as 720h")
	f.IntVar(&o.seconds, "seconds", 10, "how long")
	f.StringVarP(&o.out, "out", "o", "", "file to write; it must not exist")
	return c
}

func (o *recordOptions) check() error {
	switch {
	case strings.TrimSpace(o.Consent) == "":
		return errors.New("record needs --consent: who agreed to be recorded, and to what")
	case o.Expires <= 0 || o.Expires > 366*24*time.Hour:
		return errors.New("record needs --expires, at most 8784h")
	case o.seconds < 1 || o.seconds > maxRecordSeconds:
		return fmt.Errorf("--seconds is 1 to %d", maxRecordSeconds)
	case !strings.HasSuffix(o.out, core.SessionExt):
		return fmt.Errorf("record needs -o FILE%s", core.SessionExt)
	}
	return nil
}

func (a *app) record(ctx context.Context, o recordOptions) error {
	return a.alone(ctx, func(ap *core.Appliance) error {
		out, err := os.OpenFile(o.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("cannot write the session: %w", err)
		}
		show := newProgress(a.env.Stderr, "seconds")
		o.Progress = func(done time.Duration) { show.update(int(done.Seconds()), o.seconds) }
		r, err := ap.Record(ctx, o.Recording, out)
		if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
			if r.Frames == 0 {
				err = errors.Join(err, os.Remove(o.out))
			}
			return err
		}
		return a.print(r, func(w io.Writer) {
			fmt.Fprintf(w, "%d frames of %s in %.1f s, %d broken pictures passed over; to be deleted on %s\n", r.Frames, r.Sensor, r.Seconds, r.Skipped,
				r.Expires.Local().Format("2006-01-02 15:04"))
		})
	})
}
