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

// FingerFiles is the fingerprint bundle as a folder.
func FingerFiles() (fs.FS, error) { return fs.Sub(files, "finger") }

// Finger returns the fingerprint bundle.
func Finger() (*infer.Model, error) {
	dir, err := FingerFiles()
	if err != nil {
		return nil, err
	}
	return infer.FromDir(dir, nil)
}
