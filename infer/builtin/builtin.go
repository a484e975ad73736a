// Package builtin holds the default models that are part of the binary: fingerprints, trained on generated prints only
// (train/fingerprint). Nothing about them is a secret, so they are not sealed.
//
// Promises: the bundle is checked like any other (strict manifest, SHA-256 of every file). It blocks on nothing and owns
// nothing; weights are views of the binary and must not be written to.
package builtin

import (
	"embed"
	"io/fs"

	"vigil/infer"
)

//go:embed finger
var files embed.FS

// Finger returns the fingerprint bundle.
func Finger() (*infer.Model, error) {
	dir, err := fs.Sub(files, "finger")
	if err != nil {
		return nil, err
	}
	return infer.FromDir(dir, nil)
}
