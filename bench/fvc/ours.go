package main

import (
	"context"

	"vigil/infer/eval"
)

// ours are the systems of this repository that are measured beside NBIS: each gives an extractor for pictures of a
// resolution, and a function that closes it.
var ours []struct {
	name string
	open func(ctx context.Context, ppi int) (eval.Extractor, func(), error)
}
