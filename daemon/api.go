package main

import (
	"github.com/spf13/cobra"

	"vigil/daemon/api"
)

func (a *app) apiCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "api",
		Short: "Describe the local interface",
		Args:  exactly(),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	withKServe := true
	doc := &cobra.Command{
		Use:   "openapi",
		Short: "Print the OpenAPI 3.1 document of the local interface",
		Long: "Print the OpenAPI 3.1 document of the local interface, made from the types that it works with. A\n" +
			"running daemon shows its own at /v1/openapi.json: without /v2, unless api.kserve is on.",
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			text, err := api.Document(withKServe)
			if err != nil {
				return err
			}
			_, err = a.env.Stdout.Write(text)
			return err
		},
	}
	doc.Flags().BoolVar(&withKServe, "kserve", true, "with the protocol of KServe under /v2")
	c.AddCommand(doc)
	return c
}
