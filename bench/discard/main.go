// Command discard asks whether quality predicts errors: the error-versus-discard characteristic of ISO/IEC 29794-1. For faces (LFW,
// all pairs of pictures of one person) and fingers (the open sets of FVC, all pairs of impressions) it prints the false non-match
// rate that is left when the worst 0, 5, 10 and 20 percent of the mated comparisons are not made, by the unified quality and by each
// component. A comparison is as good as the worse of its two pictures. The threshold is the bundle's and stays.
//
// A measure that knows nothing leaves the rate as it was; the ideal one takes an error with every comparison. The last column is how
// many standard deviations more errors than by chance are among the worst 20 percent; comparisons that share a picture are taken for
// independent, so that 3 is a little, and below 2 is nothing. Pictures without a template are the worst, and non-matches.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"vigil/bench/open"
	"vigil/infer/ort"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	threads := flag.Int("threads", 1, "threads of the runtime")
	flag.Parse()
	if err := run(ctx, *threads); err != nil {
		fmt.Fprintln(os.Stderr, "discard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, threads int) (err error) {
	library, err := ort.Find(os.Getenv("VIGIL_ORT_LIB"))
	if err != nil {
		return err
	}
	rt, err := ort.Open(ort.Options{Library: library, Threads: threads})
	if err != nil {
		return err
	}
	defer rt.Close()
	for _, f := range []func(context.Context, *ort.Runtime, string) (*study, error){faces, fingers} {
		s, err := f(ctx, rt, open.Data())
		if err != nil {
			return err
		}
		s.print(os.Stdout)
	}
	return nil
}
