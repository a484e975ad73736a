package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/daemon/decide"
	"vigil/sensors/picture"
)

// readPicture reads a picture file of bounded size; "-" is standard input.
func (a *app) readPicture(path string) ([]byte, error) {
	in := a.env.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the picture: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, picture.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the picture %s: %w", path, err)
	}
	if err := picture.Check(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

func (a *app) enrollCommand() *cobra.Command {
	var q api.EnrollRequest
	c := &cobra.Command{
		Use:   "enroll --name NAME (PICTURE... | --sensor SENSOR)",
		Short: "Enrol a person from pictures, or at a sensor",
		Long: "Enrol a person from several JPEG or PNG pictures, or live at a sensor of the running daemon.\n" +
			"Pictures without one clear face of good quality are refused one by one. --name - reads the\n" +
			"name from standard input, so that it does not appear in the list of processes.",
		RunE: func(c *cobra.Command, files []string) error {
			if q.Name == "" || (len(files) == 0) == (q.Sensor == "") {
				return &codeError{exitUsage, errors.New("enroll needs --name and either pictures or --sensor (see `vigild enroll --help`)")}
			}
			if q.Name == "-" {
				line, err := bufio.NewReader(a.env.Stdin).ReadString('\n')
				if err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				q.Name = strings.TrimRight(line, "\r\n")
			}
			return a.enroll(c.Context(), q, files)
		},
	}
	c.Flags().StringVar(&q.Name, "name", "", "name of the person; - reads it from standard input")
	c.Flags().StringVar(&q.Sensor, "sensor", "", "take the samples at this sensor")
	return c
}

func (a *app) enroll(ctx context.Context, q api.EnrollRequest, files []string) error {
	var broken []string
	for _, f := range files {
		data, err := a.readPicture(f)
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		q.Pictures = append(q.Pictures, data)
	}
	for _, b := range broken {
		fmt.Fprintln(a.env.Stderr, "vigild: left out:", b)
	}
	if q.Sensor == "" && len(q.Pictures) == 0 {
		return errors.New("nobody was enrolled: no picture can be read")
	}
	if q.Sensor != "" {
		fmt.Fprintln(a.env.Stderr, "look into the sensor", q.Sensor, "...")
	}
	return a.with(ctx, func(c *api.Client) error {
		e, err := c.Enroll(ctx, q)
		if err != nil {
			return err
		}
		return a.print(e, func(w io.Writer) {
			fmt.Fprintf(w, "enrolled subject %s from %d samples\n", e.Subject, e.Samples)
			for _, r := range e.Refused {
				fmt.Fprintf(w, "  picture %d was not taken: %s\n", r.Sample, r.Reason)
			}
		})
	})
}

func (a *app) verifyCommand() *cobra.Command {
	var subject string
	c := &cobra.Command{
		Use:   "verify --subject ID PICTURE",
		Short: "Compare a picture with one enrolled person (1:1)",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, files []string) error {
			if subject == "" {
				return &codeError{exitUsage, errors.New("verify needs --subject: `vigild subjects` lists the ids")}
			}
			data, err := a.readPicture(files[0])
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				d, err := cl.Verify(c.Context(), subject, data)
				if err != nil {
					return err
				}
				return a.decisions([]core.Decision{d}, d)
			})
		},
	}
	c.Flags().StringVar(&subject, "subject", "", "id of the claimed person")
	return c
}

func (a *app) identifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "identify PICTURE",
		Short: "Search the faces of a picture among all enrolled people (1:N)",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, files []string) error {
			data, err := a.readPicture(files[0])
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Identify(c.Context(), data)
				if err != nil {
					return err
				}
				return a.decisions(list, list)
			})
		},
	}
}

// decisions prints decisions; without any match the exit code says so.
func (a *app) decisions(list []core.Decision, v any) error {
	matched := false
	err := a.print(v, func(w io.Writer) {
		var rows [][]string
		for _, d := range list {
			rows = append(rows, []string{string(d.Outcome), orDash(d.Subject), fmt.Sprintf("%.3f", d.Score),
				fmt.Sprintf("%.3f", d.Threshold), fmt.Sprintf("%.2f", d.Quality), lockText(d)})
		}
		table(w, []string{"OUTCOME", "SUBJECT", "SCORE", "THRESHOLD", "QUALITY", ""}, rows)
	})
	for _, d := range list {
		matched = matched || d.Outcome == decide.Match
	}
	if err == nil && !matched {
		return &codeError{code: exitNoMatch}
	}
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func lockText(d core.Decision) string {
	if d.Until.IsZero() {
		return ""
	}
	return "locked until " + d.Until.Local().Format(time.TimeOnly)
}

func (a *app) subjectsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "subjects",
		Short: "List enrolled people",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Subjects(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) {
					var rows [][]string
					for _, s := range list {
						rows = append(rows, []string{s.ID, s.Name, fmt.Sprint(s.Samples), s.Created.Local().Format(time.DateTime)})
					}
					table(w, []string{"SUBJECT", "NAME", "SAMPLES", "ENROLLED"}, rows)
				})
			})
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "delete ID",
		Short: "Erase a person: templates, name and key",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				if err := cl.DeleteSubject(c.Context(), ids[0]); err != nil {
					return err
				}
				return a.print(map[string]string{"deleted": ids[0]}, func(w io.Writer) { fmt.Fprintln(w, "erased subject", ids[0]) })
			})
		},
	})
	return c
}
