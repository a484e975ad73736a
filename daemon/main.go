// Command vigild turns a Linux machine with sensors and a TPM into a biometric appliance.
//
// Every command returns 0 when what it was asked for holds, 1 on an error, 2 on wrong usage, 3 when a comparison did not
// match and 4 when a check found problems. Results go to standard output, everything else to standard error.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // the first signal closes in order, the second ends at once
		<-ctx.Done()
		stop()
	}()
	os.Exit(Run(ctx, Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, os.Args[1:]))
}
