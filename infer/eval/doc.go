// Package eval measures recognition and liveness on labelled samples, in the terms of ISO/IEC 19795-1 (recognition) and
// ISO/IEC 30107-3 (presentation attacks), and gives every rate with its confidence bounds.
//
// # Parts
//
// A Protocol says which samples there are, whose they are, and which are compared. An Extractor is the system under test:
// it makes templates and compares them; what a template is, only it knows, so that faces and fingers plug in alike. A Run
// is one system's answers to a protocol: its own (Acquire, Acquired.Run) or another system's, read from a file of scores
// (ReadScores). Verify, Identify and Attack turn runs over the same protocol into a section of a Report, side by side.
// The package report beside this one draws it.
//
// # File formats
//
// All text is UTF-8, one record a line. An id is a sample's path below the folder of pictures, with slashes and without the
// extension.
//
//   - pairs (ParsePairs): LFW's pairs.txt. A line "folds pairs", then per fold that many mated lines "name i j" and that many
//     non-mated ones "name i name j", separated by blanks or tabs; picture i of a name is NAME/NAME_000i.jpg.
//   - fvc (FVC): a folder of files F_I.EXT, F the number of the finger and I that of the impression, as the Fingerprint
//     Verification Competitions name them. Other names are refused, files that begin with a dot are passed over.
//   - tree (Tree): a folder with a folder per subject, which holds that subject's pictures (.jpg, .jpeg, .png, in any case;
//     other files are passed over). Used by all-pairs and identification.
//   - liveness (ParseLiveness): "path label species", separated by blanks, or by tabs if the line has any. The label is
//     bonafide, without a species, or attack, with one (print, replay, mask: any word). Empty lines and lines that begin with
//     # are passed over. Paths are relative to the folder of pictures and stay in it.
//   - scores (ReadScores, WriteScores): CSV with the header "a,b,score": two ids in either order (an extension is dropped)
//     and the score, higher meaning more alike. An empty score says that the comparison could not be made.
//
// # Promises
//
// Figures are exact, do not depend on the order of the samples, and are the same for the same seed. A comparison that
// could not be made (failure to acquire or enrol) is never left out: it is a non-match at every threshold. The package
// starts goroutines only for the length of a call, keeps no state, reads files only where a function's name says so, and
// owns neither extractors nor pictures. It decides nothing and sets no thresholds anywhere.
package eval
