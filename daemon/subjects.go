package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
)

func (a *app) subjectsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "subjects",
		Short: "List and erase enrolled people",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Subjects(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { a.printSubjects(w, list) })
			})
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "delete ID",
		Short: "Erase a person: templates, name and key",
		Args:  exactly("an ID"),
		RunE: func(c *cobra.Command, ids []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				if err := cl.DeleteSubject(c.Context(), ids[0]); err != nil {
					return a.ofSubject(err)
				}
				return a.print(map[string]string{"deleted": ids[0]}, func(w io.Writer) { fmt.Fprintln(w, "erased subject", ids[0]) })
			})
		},
	})
	return c
}

func (a *app) printSubjects(w io.Writer, list []api.Subject) {
	if len(list) == 0 {
		fmt.Fprintf(w, "nobody is enrolled: `%s` takes a person from several pictures\n", a.command("enroll --name NAME PICTURE..."))
		return
	}
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{s.ID, s.Name, fmt.Sprint(s.Samples), s.Enrolled.Local().Format(time.DateTime)})
	}
	table(w, []string{"SUBJECT", "NAME", "SAMPLES", "ENROLLED"}, rows)
}
