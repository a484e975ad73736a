package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
	"vigil/daemon/decide"
)

func (a *app) verifyCommand() *cobra.Command {
	var subject string
	c := &cobra.Command{
		Use:   "verify --subject ID PICTURE",
		Short: "Compare a picture with one enrolled person (1:1)",
		Long: "Compare the one clear face of a JPEG or PNG picture with an enrolled person; - reads the picture\n" +
			"from standard input. The exit code is 0 for a match and 3 for anything else, also for a person\n" +
			"who is locked after too many failures, and for a presentation attack (a picture or a screen instead\n" +
			"of the person) where policy.liveness is \"required\".",
		Args: exactly("a PICTURE"),
		RunE: func(c *cobra.Command, files []string) error {
			if subject == "" {
				return usageError(c, "verify needs --subject: `%s` lists the ids", a.command("subjects"))
			}
			return a.verify(c.Context(), subject, files[0])
		},
	}
	c.Flags().StringVar(&subject, "subject", "", "id of the claimed person")
	return c
}

func (a *app) verify(ctx context.Context, subject, file string) error {
	data, err := a.readPicture(file)
	if err != nil {
		return err
	}
	return a.with(ctx, func(c *api.Client) error {
		d, err := c.Verify(ctx, subject, data)
		if err != nil {
			return a.ofSubject(ofPicture(file, err))
		}
		return a.decisions([]core.Decision{d}, d)
	})
}

// ofSubject adds a remedy to an error about an id.
func (a *app) ofSubject(err error) error {
	return hint(err, fmt.Sprintf("`%s` lists the ids", a.command("subjects")), "not_found", "invalid")
}

func (a *app) identifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "identify PICTURE",
		Short: "Search the faces of a picture among all enrolled people (1:N)",
		Long: "Search every face of a JPEG or PNG picture among all enrolled people; - reads the picture from\n" +
			"standard input. The exit code is 0 if at least one of them was found there, else 3.",
		Args: exactly("a PICTURE"),
		RunE: func(c *cobra.Command, files []string) error {
			data, err := a.readPicture(files[0])
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Identify(c.Context(), data)
				if err != nil {
					return ofPicture(files[0], err)
				}
				return a.decisions(list, list)
			})
		},
	}
}

// decisions prints decisions; without any match the exit code says so.
func (a *app) decisions(list []core.Decision, v any) error {
	matched := false
	var rows [][]string
	for _, d := range list {
		matched = matched || d.Outcome == decide.Match
		rows = append(rows, decisionRow(d))
	}
	err := a.print(v, func(w io.Writer) {
		table(w, []string{"OUTCOME", "SUBJECT", "SCORE", "THRESHOLD", "QUALITY", "LIVENESS", "LOCKED UNTIL"}, rows)
	})
	if err == nil && !matched {
		return &codeError{code: exitNoMatch}
	}
	return err
}

// decisionRow leaves empty what was not measured: a locked person is not compared, a poor face and an attack get no score.
func decisionRow(d core.Decision) []string {
	row := []string{string(d.Outcome), orDash(d.Subject), "-", "-", "-", "", ""}
	if d.Outcome != decide.LockedOut {
		row[3], row[4] = fmt.Sprintf("%.3f", d.Threshold), fmt.Sprintf("%.2f", d.Quality)
		if d.Outcome != decide.LowQuality && d.Outcome != decide.PresentationAttack {
			row[2] = fmt.Sprintf("%.3f", d.Score)
		}
	}
	if d.Liveness != nil {
		row[5] = fmt.Sprintf("%.2f of %.2f", d.Liveness.Score, d.Liveness.Threshold)
	}
	if !d.Until.IsZero() {
		row[6] = d.Until.Local().Format(time.DateTime)
	}
	return row
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
