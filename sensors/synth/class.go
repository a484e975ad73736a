package synth

import "fmt"

// Class is the pattern of a finger, as one sees it on the print.
type Class uint8

// Pattern classes. A left loop opens to the left and has its delta on the right.
const (
	AnyClass Class = iota // drawn by natural frequency
	Arch
	TentedArch
	LeftLoop
	RightLoop
	Whorl
	DoubleLoop
	classes = iota
)

var classNames = [classes]string{"any", "arch", "tented-arch", "left-loop", "right-loop", "whorl", "double-loop"}

// String returns the name used in JSON.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// MarshalText writes the name.
func (c Class) MarshalText() ([]byte, error) {
	if int(c) >= len(classNames) {
		return nil, fmt.Errorf("cannot write pattern class %d: there are %d", uint8(c), len(classNames))
	}
	return []byte(classNames[c]), nil
}

// UnmarshalText reads a name.
func (c *Class) UnmarshalText(text []byte) error {
	for i, name := range classNames {
		if name == string(text) {
			*c = Class(i)
			return nil
		}
	}
	return fmt.Errorf("cannot read pattern class %q: it is one of %q", text, classNames)
}

// drawClass draws by the natural frequencies of Wilson, Candela and Watson, "Neural network fingerprint classification",
// 1993 (NIST): arch 3.7 %, tented arch 2.9 %, left loop 33.8 %, right loop 31.7 %, whorl 27.9 %. They count double loops
// as whorls; that one whorl in six is a double loop is our choice.
func drawClass(r random) Class {
	u := float64(r.unit() * 100)
	for _, c := range [...]struct {
		class   Class
		percent float64
	}{{Arch, 3.7}, {TentedArch, 2.9}, {LeftLoop, 33.8}, {RightLoop, 31.7}, {Whorl, 23.25}} {
		if u -= c.percent; u < 0 {
			return c.class
		}
	}
	return DoubleLoop
}
