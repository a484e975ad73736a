package v4l2

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vigil/sensors"
)

// Pin says which camera is meant. An empty field is not looked at; Place or Node is needed.
type Pin struct {
	// Place is where it is plugged in, by the name that udev gives in /dev/v4l/by-path:
	// "pci-0000:00:14.0-usb-0:1:1.0-video-index0". It is made of the kernel's own bus addresses; udev is not needed.
	Place  string
	Node   string // "/dev/video0": whatever is there; the others still hold
	USB    string // vendor and product, "046d:085e"
	Serial string // of the USB device
	Card   string // the name of the node in /sys/class/video4linux/videoN/name
}

// Identity is what the kernel says of a video device.
type Identity struct {
	Node   string `json:"node"`  // "/dev/video0"
	Place  string `json:"place"` // as in Pin
	USB    string `json:"usb,omitempty"`
	Serial string `json:"serial,omitempty"`
	Card   string `json:"card"`

	dev     uint64 // device number
	devPath string // below /sys, as uevents name it
}

// ByPath is the folder of udev's names for places.
const ByPath = "/dev/v4l/by-path/"

// Kernel is where cameras are looked for and opened. That of the machine is used unless a test plays another.
type Kernel struct {
	Sys, Dev string                                            // "/sys" and "/dev"
	Open     func(path string) (n Node, dev uint64, err error) // a device file, and its number
}

var machine = Kernel{Sys: "/sys", Dev: "/dev", Open: openFile}

// list gives all video devices in the order of their numbers.
func (h *Kernel) list() ([]Identity, error) {
	names, err := filepath.Glob(filepath.Join(h.Sys, "class/video4linux/video*"))
	if err != nil {
		return nil, err
	}
	var all []Identity
	for _, name := range names {
		if id, err := h.identify(name); err == nil { // else it has just gone
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(a, b Identity) int { return int(a.dev&0xff) - int(b.dev&0xff) })
	return all, nil
}

// identify reads a device of /sys/class/video4linux.
func (h *Kernel) identify(class string) (Identity, error) {
	real, err := filepath.EvalSymlinks(class)
	if err != nil {
		return Identity{}, err
	}
	root, err := filepath.EvalSymlinks(h.Sys)
	if err != nil {
		return Identity{}, err
	}
	dev, err := attribute(real, "dev")
	if err != nil {
		return Identity{}, err
	}
	id := Identity{Node: filepath.Join(h.Dev, filepath.Base(class)), devPath: strings.TrimPrefix(real, root)}
	if id.dev, err = parseDev(dev); err != nil {
		return Identity{}, err
	}
	id.Card, _ = attribute(real, "name")
	index, err := attribute(real, "index")
	if err != nil {
		index = "0"
	}
	parent, err := filepath.EvalSymlinks(filepath.Join(real, "device"))
	if err != nil { // a virtual device hangs on nothing
		parent = ""
	}
	id.Place = place(root, parent, index)
	if usb := usbDevice(parent, root); usb != "" {
		vendor, _ := attribute(usb, "idVendor")
		product, _ := attribute(usb, "idProduct")
		id.USB = vendor + ":" + product
		id.Serial, _ = attribute(usb, "serial")
	}
	return id, nil
}

// attribute reads one line of sysfs.
func attribute(dir, name string) (string, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return strings.TrimSpace(string(text)), err
}

func parseDev(s string) (uint64, error) {
	major, minor, _ := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("device number %q is not MAJOR:MINOR", s)
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}

// place composes the name as udev's path_id does: the USB port and interface, then the nearest PCI or platform device.
func place(root, parent, index string) string {
	var parts []string
	usb, pci := false, false
	for dir := parent; len(dir) > len(root); dir = filepath.Dir(dir) {
		name := filepath.Base(dir)
		link, err := os.Readlink(filepath.Join(dir, "subsystem"))
		if err != nil {
			continue
		}
		switch filepath.Base(link) {
		case "usb":
			if _, port, ok := strings.Cut(name, "-"); ok && !usb {
				parts, usb = append([]string{"usb-0:" + port}, parts...), true
			}
		case "pci":
			if !pci {
				parts, pci = append([]string{"pci-" + name}, parts...), true
			}
		case "platform":
			if !pci {
				parts = append([]string{"platform-" + name}, parts...)
			}
		}
	}
	if len(parts) == 0 {
		parts = []string{"virtual"}
	}
	return strings.Join(append(parts, "video-index"+index), "-")
}

// usbDevice is the folder of the USB device that parent, an interface of it, belongs to; empty for others.
func usbDevice(parent, root string) string {
	for dir := parent; len(dir) > len(root); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "idVendor")); err == nil {
			return dir
		}
	}
	return ""
}

// mismatch says what of the camera is not as pinned; empty if nothing.
func (p *Pin) mismatch(id *Identity) string {
	for _, f := range []struct{ what, want, got string }{
		{"place", p.Place, id.Place}, {"USB id", p.USB, id.USB}, {"serial number", p.Serial, id.Serial}, {"name", p.Card, id.Card},
	} {
		if f.want != "" && f.want != f.got {
			return fmt.Sprintf("its %s is %q, pinned is %q", f.what, f.got, f.want)
		}
	}
	return ""
}

// looksLike says that a camera elsewhere claims to be the pinned one.
func (p *Pin) looksLike(id *Identity) bool {
	if p.USB == "" && p.Serial == "" && p.Card == "" {
		return false
	}
	return (p.Card != "" && p.Card == id.Card) || (p.Card == "" && (p.USB == "" || p.USB == id.USB) && (p.Serial == "" || p.Serial == id.Serial))
}

// sameSocket says that two places differ in the index of the node only: cameras have several nodes, which do not come and
// go at once.
func sameSocket(a, b string) bool {
	a, _, _ = strings.Cut(a, "-video-index")
	b, _, _ = strings.Cut(b, "-video-index")
	return a == b
}

// find is the camera that p means. Errors: ErrSwapped and ErrFake, which name what is wrong, sensors.ErrUnplugged.
func (h *Kernel) find(p *Pin) (Identity, error) {
	all, err := h.list()
	if err != nil {
		return Identity{}, err
	}
	var wrong Identity
	for _, id := range all { // a place may have several nodes of the same index, which the name tells apart
		if (p.Place == "" || id.Place == p.Place) && (p.Place != "" || id.Node == p.Node) {
			if p.mismatch(&id) == "" {
				return id, nil
			}
			wrong = id
		}
	}
	if wrong.Node != "" {
		return wrong, fmt.Errorf("%w: %s at %s: %s", ErrSwapped, wrong.Node, wrong.Place, p.mismatch(&wrong))
	}
	where := p.Place
	if where == "" {
		where = p.Node
	}
	for i := range all {
		if id := &all[i]; p.looksLike(id) && !sameSocket(id.Place, p.Place) {
			return *id, fmt.Errorf("%w: %s calls itself %q, but is plugged in at %s and not at %s", ErrFake, id.Node, id.Card, id.Place, where)
		}
	}
	return Identity{}, fmt.Errorf("%w: nothing is plugged in at %s", sensors.ErrUnplugged, where)
}

// openCamera opens the camera and makes sure that the file is the device that was looked at.
func (h *Kernel) openCamera(p *Pin) (Node, Identity, error) {
	id, err := h.find(p)
	if err != nil {
		return nil, id, err
	}
	n, dev, err := h.Open(id.Node)
	if err != nil {
		return nil, id, err
	}
	if dev != id.dev {
		_ = n.Close() // it is somebody else's
		return nil, id, fmt.Errorf("%w: %s is another device than the kernel says", ErrRefused, id.Node)
	}
	if again, err := h.find(p); err != nil || again != id { // replaced between the look and the opening
		_ = n.Close()
		return nil, id, fmt.Errorf("%w: %s changed while it was opened", sensors.ErrUnplugged, id.Node)
	}
	return n, id, nil
}
