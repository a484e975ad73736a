package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"vigil/daemon/api"
	"vigil/daemon/core"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke tokens of the local interface",
		Long: "Make, list and revoke tokens of the local interface. A client that sends the header\n" +
			"`Authorization: Bearer TOKEN` has the scope of the token, whoever it is else:\n\n" +
			"  viewer    may look and ask: status, health, events, sensors, models, verify, identify\n" +
			"  enroller  also enrols, lists and erases people\n" +
			"  operator  everything, also models, tokens and the check of the store\n\n" +
			"The device keeps a hash of each token, sealed. Making and revoking are audited.",
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return c
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var q api.TokenRequest
	var expires time.Duration
	c := &cobra.Command{
		Use:   "create --scope viewer|enroller|operator --name NAME [--expires 720h]",
		Short: "Make a token, and show it this once",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case q.Scope == "":
				return usageError(c, "token create needs --scope: viewer, enroller or operator")
			case q.Name == "":
				return usageError(c, "token create needs --name, such as front-desk")
			case expires < 0 || expires%time.Second != 0:
				return usageError(c, "--expires %v: whole seconds, such as 720h", expires)
			}
			q.ExpiresSeconds = int64(expires / time.Second)
			return a.with(c.Context(), func(cl *api.Client) error {
				t, err := cl.CreateToken(c.Context(), q)
				if err != nil {
					return err
				}
				fmt.Fprintln(c.ErrOrStderr(), "This is the only time that the token is shown:")
				return a.print(t, func(w io.Writer) { fmt.Fprintln(w, t.Secret) })
			})
		},
	}
	c.Flags().StringVar(&q.Scope, "scope", "", "what its holder may do: viewer, enroller or operator")
	c.Flags().StringVar(&q.Name, "name", "", "for people and the audit: a-z, 0-9, dot and dash")
	c.Flags().DurationVar(&expires, "expires", 0, "how long it is good for, such as 720h; for ever if left out")
	return c
}

func (a *app) tokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens, without what makes them valid",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				list, err := cl.Tokens(c.Context())
				if err != nil {
					return err
				}
				return a.print(list, func(w io.Writer) { printTokens(w, list, time.Now()) })
			})
		},
	}
}

func printTokens(w io.Writer, list []core.Token, now time.Time) {
	if len(list) == 0 {
		fmt.Fprintln(w, "there are no tokens: make one with `vigild token create`")
		return
	}
	var rows [][]string
	for _, t := range list {
		expires := "never"
		if !t.Expires.IsZero() {
			expires = t.Expires.Local().Format("2006-01-02 15:04")
		}
		if t.Expired(now) {
			expires += " (expired)"
		}
		rows = append(rows, []string{t.ID, t.Name, t.Scope, t.Created.Local().Format("2006-01-02 15:04"), expires})
	}
	table(w, []string{"ID", "NAME", "SCOPE", "MADE", "EXPIRES"}, rows)
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a token useless at once",
		Args:  exactly("an ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.with(c.Context(), func(cl *api.Client) error {
				if err := cl.RevokeToken(c.Context(), args[0]); err != nil {
					return err
				}
				return a.print(map[string]string{"revoked": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "revoked", args[0]) })
			})
		},
	}
}
