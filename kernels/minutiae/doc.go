// Package minutiae packs a fingerprint's minutiae, each with a learned description of its surroundings, into a row of
// bytes, and compares two such rows.
//
// Promises: a comparison is a pure function of two rows, symmetric up to rounding, gives a score from 0 (nothing in
// common) to below 1, allocates nothing and never blocks. A row that Check refuses is never read out of bounds: its score
// is 0. A Matcher owns its scratch memory and serves one goroutine at a time; rows stay the caller's.
//
// The score needs no alignment and no reference point. Pairs of minutiae whose descriptions are alike are candidates;
// candidates support each other where the one lies in the frame of the other as it does in the other print (relaxation in
// the spirit of the local similarity sort with relaxation of Cappelli, Ferrara and Maltoni, "Minutia Cylinder-Code", 2010);
// the best one-to-one choice of them is summed up. Only relations between near minutiae count strictly, so that skin may
// stretch.
//
// It does not find minutiae, run models, or choose thresholds.
package minutiae
