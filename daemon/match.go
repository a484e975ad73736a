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
	var q api.MatchRequest
	c := &cobra.Command{
		Use:   "verify --subject ID PICTURE",
		Short: "Compare a picture with one enrolled person (1:1)",
		Long: "Compare the one clear face of a JPEG or PNG picture, or the finger with --modality finger, with an\n" +
			"enrolled person; - reads the picture from standard input. The exit code is 0 for a match and 3 for anything else, also for a person\n" +
			"who is locked after too many failures, and for a presentation attack (a picture or a screen instead\n" +
			"of the person) where policy.liveness is \"required\".",
		Args: exactly("a PICTURE"),
		RunE: func(c *cobra.Command, files []string) error {
			if q.Subject == "" {
				return usageError(c, "verify needs --subject: `%s` lists the ids", a.command("subjects"))
			}
			return a.verify(c.Context(), q, files[0])
		},
	}
	c.Flags().StringVar(&q.Subject, "subject", "", "id of the claimed person")
	pictureFlags(c, &q.Modality, &q.DPI)
	return c
}

func (a *app) verify(ctx context.Context, q api.MatchRequest, file string) (err error) {
	if q.Picture, err = a.readPicture(file); err != nil {
		return err
	}
	return a.with(ctx, func(c *api.Client) error {
		d, err := c.VerifyPicture(ctx, q)
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
	var q api.MatchRequest
	c := &cobra.Command{
		Use:   "identify PICTURE",
		Short: "Search the faces of a picture, or its finger, among all enrolled people (1:N)",
		Long: "Search every face of a JPEG or PNG picture, or the finger with --modality finger, among all enrolled\n" +
			"people; - reads the picture from standard input. The exit code is 0 if at least one of them was\n" +
			"found there, else 3.",
		Args: exactly("a PICTURE"),
		RunE: func(c *cobra.Command, files []string) (err error) {
			if q.Picture, err = a.readPicture(files[0]); err != nil {
				return err
			}
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.IdentifyPicture(c.Context(), q)
				if err != nil {
					return ofPicture(files[0], err)
				}
				return a.decisions(list, list)
			})
		},
	}
	pictureFlags(c, &q.Modality, &q.DPI)
	return c
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
		table(w, []string{"OUTCOME", "SUBJECT", "SCORE", "THRESHOLD", "QUALITY", "LIVENESS", "LOCKED UNTIL", "GUIDANCE"}, rows)
	})
	if err == nil && !matched {
		return &codeError{code: exitNoMatch}
	}
	return err
}

// decisionRow leaves empty what was not measured: a locked person is not compared, a poor face and an attack get no score.
func decisionRow(d core.Decision) []string {
	row := []string{string(d.Outcome), orDash(d.Subject), "-", "-", "-", "", "", guidance(d.Assessment)}
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

// guidance is the code of what would help and the component that it is about, which is the worst; empty where all is good.
func guidance(a *core.Assessment) string {
	if a == nil || a.Guidance == "" {
		return ""
	}
	c := a.Components[a.Worst]
	unit := " " + c.Unit
	if c.Unit == "1" {
		unit = ""
	}
	return fmt.Sprintf("%s (%s %d of 100, %.3g%s)", a.Guidance, a.Worst, c.Value, c.Measured, unit)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
