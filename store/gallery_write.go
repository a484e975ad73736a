package store

import (
	"fmt"

	"vigil/secure/mem"
)

// The methods in this file belong to the one writer of the store. Rows from n on
// are its own: it fills them while readers scan the rows before them, and makes
// them visible, or clears them, under the write lock.

// stage writes a template into row n+staged, growing the gallery when it has no
// room. It changes nothing that readers see. Bytes are taken as two's complement.
func stage[T int8 | byte](g *Gallery, staged int, values []T, scale float32) error {
	if g.n+staged == 0 {
		if err := g.shape(len(values)); err != nil {
			return err
		}
	}
	if len(values) != g.dim {
		return modelError(g.modelID, g.dim, g.modelID, len(values))
	}
	row := g.n + staged
	if row >= len(g.scales) {
		if err := g.grow(2*len(g.scales), row); err != nil {
			return err
		}
	}
	dst := g.row(row)
	for i, v := range values {
		dst[i] = int8(v)
	}
	g.scales[row] = scale
	return nil
}

// shape gives an empty gallery its row length.
func (g *Gallery) shape(dim int) error {
	if dim == g.dim && g.buf != nil {
		return nil
	}
	stride := (dim + rowAlign - 1) / rowAlign * rowAlign
	buf, err := mem.New(minRows * stride)
	if err != nil {
		return fmt.Errorf("cannot make room for templates of model %q: %w", g.modelID, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.buf
	g.dim, g.stride = dim, stride
	g.use(buf, minRows)
	return old.Close()
}

// grow moves the gallery, with its first keep rows, to a buffer of the given
// rows. Readers go on with the old one meanwhile.
func (g *Gallery) grow(rows, keep int) error {
	buf, err := mem.New(rows * g.stride)
	if err != nil {
		return fmt.Errorf("cannot make room for %d templates of model %q: %w", rows, g.modelID, err)
	}
	copy(buf.Bytes(), g.buf.Bytes()[:keep*g.stride])
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.buf
	g.use(buf, rows)
	return old.Close()
}

// use switches to buf. The write lock is held.
func (g *Gallery) use(buf *mem.Buffer, rows int) {
	scales, owners := make([]float32, rows), make([]string, rows)
	copy(scales, g.scales)
	copy(owners, g.owners)
	g.buf, g.rows, g.scales, g.owners = buf, buf.Int8s(), scales, owners
}

func (g *Gallery) row(i int) []int8 { return g.rows[i*g.stride:][:g.stride] }

// publish makes staged row from visible as the next row of its subject. The
// write lock is held.
func (g *Gallery) publish(from int, subjectID string) {
	g.move(g.n, from)
	g.owners[g.n] = subjectID
	g.own[subjectID] = append(g.own[subjectID], g.n)
	g.n++
}

// drop removes a subject's rows, filling each hole with the last row. The write
// lock is held.
func (g *Gallery) drop(subjectID string) {
	rows := g.own[subjectID]
	delete(g.own, subjectID)
	for len(rows) > 0 {
		// The highest first: the last row is then never one that is to go.
		at := 0
		for i := range rows {
			if rows[i] > rows[at] {
				at = i
			}
		}
		row := rows[at]
		rows[at] = rows[len(rows)-1]
		rows = rows[:len(rows)-1]
		g.n--
		if row != g.n {
			owner := g.owners[g.n]
			for i, r := range g.own[owner] {
				if r == g.n {
					g.own[owner][i] = row
				}
			}
			g.owners[row] = owner
		}
		g.move(row, g.n)
		clear(g.row(g.n))
		g.scales[g.n], g.owners[g.n] = 0, ""
	}
}

// move copies row from to row to and clears row from, unless they are one.
func (g *Gallery) move(to, from int) {
	if to == from {
		return
	}
	copy(g.row(to), g.row(from))
	g.scales[to] = g.scales[from]
	clear(g.row(from))
	g.scales[from] = 0
}

// clearStaged zeroes rows that will not be published.
func (g *Gallery) clearStaged(staged int) {
	for i := g.n; i < g.n+staged; i++ {
		clear(g.row(i))
		g.scales[i] = 0
	}
}

// close zeroes and releases the rows; the gallery is empty from then on.
func (g *Gallery) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	buf := g.buf
	g.buf, g.rows, g.scales, g.owners = nil, nil, nil, nil
	g.n, g.dim, g.stride = 0, 0, 0
	clear(g.own)
	return buf.Close()
}
