//go:build !appliance

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// person is somebody of the data set, in the roles of the demo.
type person struct {
	Name     string `json:"name"`
	Enrolled bool   `json:"enrolled"`
	Samples  int    `json:"samples"` // taken at enrolment
	Shown    int    `json:"shown"`   // pictures, or visits of a clip
	Found    int    `json:"found"`   // recognised as this person
	Unknown  int    `json:"unknown"` // decided to be a stranger
	Wrong    int    `json:"wrong"`   // recognised as somebody else
	Strays   int    `json:"strays"`  // more than one event for one picture or visit

	enroll []string // pictures to enrol with
	probes []string // pictures to show
	id     string
	seed   uint64 // of a generated finger
}

// cast is who plays in the demo.
type cast struct {
	spare     []*person // candidates to be enrolled from pictures, in order
	people    []*person // enrolled from pictures
	refused   []string  // why candidates were not enrolled
	strangers []*person // only shown
	actor     *person   // enrolled live, shown in clips
	extra     *person   // a stranger in clips
	fingers   []*person // enrolled by generated fingers
	strange   []*person // generated fingers, only shown
}

// Sizes of the cast: enough people for a table, few enough for a minute on two cores.
const (
	castPeople    = 14
	castStrangers = 14
	maxEnroll     = 6
	maxProbes     = 3
)

// findData looks for the pictures of faces. Without them the demo shows fingers only, which need nothing from outside.
func (d *demo) findData() error {
	d.data = os.Getenv("VIGIL_DATA")
	if d.data == "" {
		d.data = filepath.Join("..", "shared", "data")
	}
	var missing []string
	for _, p := range []string{"models/yunet_s_320_320.onnx", "models/mobilefacenet_foamliu.onnx", "faces/lfw", "clips/P1", "clips/P3"} {
		if _, err := os.Stat(filepath.Join(d.data, p)); err != nil {
			missing = append(missing, p)
		}
	}
	d.cast = &cast{}
	if d.faces = len(missing) == 0; d.faces {
		var err error
		if d.cast, err = chooseCast(filepath.Join(d.data, "faces", "lfw")); err != nil {
			return err
		}
	} else {
		d.say("no faces in this demo: %s lacks %s (VIGIL_DATA; README, section \"Data\"); generated fingers need nothing", d.data, strings.Join(missing, ", "))
	}
	d.cast.castTheFingers()
	return nil
}

// chooseCast takes people with at least eight pictures, evenly over the alphabet, and strangers among those with two or
// three.
func chooseCast(dir string) (*cast, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var many, few []*person
	for _, e := range entries {
		files, err := filepath.Glob(filepath.Join(dir, e.Name(), "*.jpg"))
		if err != nil {
			return nil, err
		}
		slices.Sort(files)
		p := &person{Name: strings.ReplaceAll(e.Name(), "_", " ")}
		half := (len(files) + 1) / 2
		switch {
		case len(files) >= 8 && len(files) <= 16:
			p.Enrolled, p.enroll, p.probes = true, files[:min(half, maxEnroll)], files[half:min(len(files), half+maxProbes)]
			many = append(many, p)
		case len(files) == 2 || len(files) == 3:
			p.probes = files[:2]
			few = append(few, p)
		}
	}
	c := &cast{
		spare: spread(many, 2*castPeople), strangers: spread(few, castStrangers),
		actor: &person{Name: "clips P1 (live)", Enrolled: true}, extra: &person{Name: "clips P3"},
	}
	if len(c.spare) < 2 || len(c.strangers) < 2 {
		return nil, fmt.Errorf("%s holds too few people with several pictures", dir)
	}
	return c, nil
}

// spread picks n of the list, evenly.
func spread(list []*person, n int) []*person {
	if len(list) <= n {
		return list
	}
	out := make([]*person, n)
	for i := range out {
		out[i] = list[i*len(list)/n]
	}
	return out
}

// everybody lists the enrolled people, then the strangers.
func (c *cast) everybody() []*person {
	all := slices.Concat(c.fingers, c.people)
	if c.actor != nil {
		all = append(all, c.actor)
	}
	all = append(append(all, c.strange...), c.strangers...)
	if c.extra != nil {
		all = append(all, c.extra)
	}
	return all
}
