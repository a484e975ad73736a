package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
)

func (a *app) enrollCommand() *cobra.Command {
	var q api.EnrollRequest
	c := &cobra.Command{
		Use:   "enroll (--name NAME | --subject ID) (PICTURE... | --sensor SENSOR)",
		Short: "Enrol a person from pictures, or at a sensor",
		Long: "Enrol a person from several JPEG or PNG pictures of the face, or of one finger with --modality finger,\n" +
			"or live at a sensor of the running daemon. --subject adds to a person who is enrolled: a finger to a\n" +
			"face, or another finger. Pictures without one clear face or finger of good quality are refused one by\n" +
			"one; a file that cannot be read ends the command before anybody is enrolled. --name - reads the name\n" +
			"from standard input, so that it does not appear in the list of processes.",
		RunE: func(c *cobra.Command, files []string) error {
			switch {
			case (q.Name == "") == (q.Subject == ""):
				return usageError(c, "enroll needs --name, or --subject of a person who is enrolled")
			case q.Sensor != "" && (q.Modality != "" || q.DPI != 0):
				return usageError(c, "what a sensor sees stands in the configuration: leave out --modality and --dpi")
			case (len(files) == 0) == (q.Sensor == ""):
				return usageError(c, "enroll needs either pictures or --sensor")
			case len(files) > core.MaxSamples:
				return usageError(c, "%d pictures are too many: an enrolment takes %d", len(files), core.MaxSamples)
			}
			if err := a.readName(&q.Name); err != nil {
				return err
			}
			if q.Sensor != "" {
				return a.enrollAt(c.Context(), q)
			}
			return a.enroll(c.Context(), q, files)
		},
	}
	c.Flags().StringVar(&q.Name, "name", "", "name of the person; - reads it from standard input")
	c.Flags().StringVar(&q.Subject, "subject", "", "id of a person who is enrolled already")
	c.Flags().StringVar(&q.Sensor, "sensor", "", "take the samples at this sensor")
	pictureFlags(c, &q.Modality, &q.DPI)
	return c
}

// readName replaces the name "-" by a line of standard input.
func (a *app) readName(name *string) error {
	if *name != "-" {
		return nil
	}
	line, err := bufio.NewReader(a.env.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot read the name from standard input: %w", err)
	}
	*name = strings.TrimRight(line, "\r\n")
	return nil
}

func (a *app) enroll(ctx context.Context, q api.EnrollRequest, files []string) error {
	for _, f := range files {
		data, err := a.readPicture(f)
		if err != nil {
			return fmt.Errorf("nobody was enrolled: %w", err)
		}
		q.Pictures = append(q.Pictures, data)
	}
	return a.with(ctx, func(c *api.Client) error {
		e, err := c.Enroll(ctx, q)
		var p *api.Problem
		if errors.As(err, &p) {
			a.printRefused(p.Refused, files)
		}
		if err != nil {
			return err
		}
		a.printRefused(e.Refused, files)
		a.printTaken(e.Taken, files)
		return a.printEnrolled(e)
	})
}

// pictureFlags adds the flags that say what a picture shows.
func pictureFlags(c *cobra.Command, modality *string, dpi *float64) {
	c.Flags().StringVar(modality, "modality", "", "what the picture shows: face (also if empty) or finger")
	c.Flags().Float64Var(dpi, "dpi", 0, "pixels per inch of a fingerprint; 0 means 500")
}

// printRefused says of each picture that was not taken why.
func (a *app) printRefused(list []core.Refused, files []string) {
	for _, r := range list {
		if r.Sample >= 1 && r.Sample <= len(files) {
			fmt.Fprintf(a.env.Stderr, "not taken: %s: %s%s\n", files[r.Sample-1], r.Reason, after(": ", guidance(r.Assessment)))
		}
	}
}

// printTaken says what would have made a picture better that was taken.
func (a *app) printTaken(list []core.Taken, files []string) {
	for _, t := range list {
		if text := guidance(t.Assessment); text != "" && t.Sample >= 1 && t.Sample <= len(files) {
			fmt.Fprintf(a.env.Stderr, "taken: %s: quality %.2f, %s\n", files[t.Sample-1], t.Quality, text)
		}
	}
}

// after is a text behind a separator; nothing if there is no text.
func after(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}

func (a *app) enrollAt(ctx context.Context, q api.EnrollRequest) error {
	return a.withDaemon(ctx, "enrolment at a sensor", func(c *api.Client) error {
		fmt.Fprintf(a.env.Stderr, "waiting at sensor %s: look into the camera, or touch the reader several times ...\n", q.Sensor)
		e, err := c.Enroll(ctx, q)
		if err != nil {
			return hint(err, fmt.Sprintf("`%s` lists the sensors", a.command("status")), "no_sensor")
		}
		return a.printEnrolled(e)
	})
}

func (a *app) printEnrolled(e core.Enrolled) error {
	return a.print(e, func(w io.Writer) { fmt.Fprintf(w, "enrolled subject %s from %d samples\n", e.Subject, e.Samples) })
}
