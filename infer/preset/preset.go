// Package preset holds the manifests of well-known public models without their weights: the user brings the files, the
// manifest pins them by SHA-256 and says how they are used.
//
// It promises that every preset is a valid manifest (a test reads each), blocks on nothing and owns nothing.
package preset

import (
	"embed"
	"fmt"
	"strings"

	"vigil/infer"
)

//go:embed *.json
var files embed.FS

// Names lists the presets.
func Names() []string {
	entries, _ := files.ReadDir(".") // an embedded folder that exists
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	return names
}

// Load returns the manifest of a preset.
func Load(name string) (*infer.Manifest, error) {
	data, err := files.ReadFile(name + ".json")
	if err != nil {
		return nil, fmt.Errorf("no preset %q: there are %s", name, strings.Join(Names(), ", "))
	}
	return infer.ParseManifest(data)
}
