//go:build appliance

package report

import (
	"errors"
	"io"
)

// drawsPNG is false in the binary that ships: the plotting library and its fonts would double its size, and the page and
// the SVG files hold the same drawings.
const drawsPNG = false

func (c *chart) png(io.Writer) error { return errors.ErrUnsupported }
