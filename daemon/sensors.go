package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"vigil/daemon/core"
	"vigil/sensors/v4l2"
)

func (a *app) sensorsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sensors",
		Short: "Look at the cameras of this machine, and set a fingerprint module",
		Args:  cobra.ArbitraryArgs,
		RunE:  noCommand,
	}
	c.AddCommand(a.camerasCommand(), a.moduleCommand())
	return c
}

func (a *app) camerasCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cameras",
		Short: "List the video devices, with what pins them in the configuration",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			list, err := v4l2.List()
			if err != nil {
				return err
			}
			return a.print(append([]v4l2.Identity{}, list...), func(w io.Writer) { // [] where there is none, not null
				if len(list) == 0 {
					fmt.Fprintln(w, "no camera is here: plug one in; where `ls /sys/class/video4linux` is empty the kernel has no driver for it")
					return
				}
				var rows [][]string
				for _, id := range list {
					rows = append(rows, []string{id.Node, v4l2.ByPath + id.Place, orDash(id.USB), orDash(id.Serial), id.Card})
				}
				table(w, []string{"NODE", "PATH", "USB", "SERIAL", "CARD"}, rows)
			})
		},
	}
}

func (a *app) moduleCommand() *cobra.Command {
	var change core.ModuleChange
	var file string
	c := &cobra.Command{
		Use:   "module SENSOR [--baud N] [--new-password FILE]",
		Short: "Ask a fingerprint module at a serial port what it is, and set its rate and password",
		Long: "Ask the module of a configured sensor with the driver uart what it is. --baud sets the rate of its line,\n" +
			"--new-password its password, one number of 32 bits, from a file that only its owner can read, or from standard\n" +
			"input with -. Both stay in the module. Then set baud and password_file of the sensor to them. The change is\n" +
			"audited, without the password. A port has one user: stop the daemon first.",
		Args: exactly("SENSOR"),
		RunE: func(c *cobra.Command, args []string) error {
			if change.Baud != 0 && (change.Baud%9600 != 0 || change.Baud < 0 || change.Baud > 115200) {
				return usageError(c, "--baud is a multiple of 9600 up to 115200")
			}
			if file != "" {
				password, err := a.modulePassword(file)
				if err != nil {
					return err
				}
				change.Password = &password
			}
			return a.module(c.Context(), args[0], change)
		},
	}
	c.Flags().IntVar(&change.Baud, "baud", 0, "new rate of the line")
	c.Flags().StringVar(&file, "new-password", "", "file with the new password; - reads standard input")
	return c
}

// maxPasswordBytes bounds the file of a password.
const maxPasswordBytes = 256

// modulePassword reads a password. It is in no error.
func (a *app) modulePassword(file string) (uint32, error) {
	in := a.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return 0, fmt.Errorf("cannot read the password: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return 0, fmt.Errorf("cannot read the password: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return 0, fmt.Errorf("cannot read the password: %s has mode %v: chmod 600", file, info.Mode().Perm())
		}
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPasswordBytes))
	if err != nil {
		return 0, fmt.Errorf("cannot read the password: %w", err)
	}
	defer clear(text)
	return core.ParseModulePassword(text)
}

func (a *app) module(ctx context.Context, sensor string, change core.ModuleChange) error {
	return a.alone(ctx, func(ap *core.Appliance) error {
		info, err := ap.ConfigureModule(ctx, sensor, change)
		if err != nil {
			return err
		}
		return a.print(info, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %d baud, packets of %d bytes, address %s, room for %d templates, none of which is used\n",
				info.Sensor, info.Baud, info.PacketBytes, info.Address, info.Capacity)
			if info.PasswordChanged || info.BaudChanged {
				fmt.Fprintln(w, "the module keeps the change: set baud, and password or password_file, of the sensor to it")
			}
		})
	})
}
