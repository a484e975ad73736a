package v4l2test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Place is where a camera in port 1 is plugged in; see v4l2.Pin.
const Place = "pci-0000:00:14.0-usb-0:1:1.0-video-index0"

// Machine is a computer with a sysfs of its own. Cameras are put in and taken out.
type Machine struct {
	Sys string // its /sys

	mu      sync.Mutex
	cameras map[string]*Camera // by node
	refuse  error
	opens   int
}

// NewMachine has no camera. Its sysfs lies in a folder, which is the caller's.
func NewMachine(dir string) *Machine { return &Machine{Sys: dir, cameras: map[string]*Camera{}} }

// Refuse makes every opening fail with err; nil ends that.
func (m *Machine) Refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

// Opens is how often a camera was opened, or was to be.
func (m *Machine) Opens() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opens
}

// Open opens a node and says its device number.
func (m *Machine) Open(path string) (*Camera, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opens++
	k := m.cameras[path]
	switch {
	case m.refuse != nil:
		return nil, 0, m.refuse
	case k == nil:
		return nil, 0, unix.ENODEV
	}
	var n int
	if _, err := fmt.Sscanf(path, "/dev/video%d", &n); err != nil {
		return nil, 0, err
	}
	k.opened()
	return k, unix.Mkdev(81, uint32(n)), nil
}

// folders are those of a camera in a port of the USB bus.
func (m *Machine) folders(number int, port string) (device, face, node string) {
	device = filepath.Join(m.Sys, "devices/pci0000:00/0000:00:14.0/usb1/1-"+port)
	face = filepath.Join(device, "1-"+port+":1.0")
	return device, face, filepath.Join(face, fmt.Sprintf("video4linux/video%d", number))
}

func (m *Machine) class(number int) string {
	return filepath.Join(m.Sys, "class/video4linux", fmt.Sprintf("video%d", number))
}

// Plug puts a USB camera into a port: it is /dev/videoNUMBER then. usb is vendor and product, such as "046d:085e".
func (m *Machine) Plug(number int, port, usb, serial, card string, k *Camera) error {
	device, face, node := m.folders(number, port)
	files := map[string]string{
		node + "/dev": fmt.Sprintf("81:%d\n", number), node + "/name": card + "\n", node + "/index": "0\n",
		device + "/idVendor": usb[:4] + "\n", device + "/idProduct": usb[5:] + "\n", device + "/serial": serial + "\n",
	}
	var errs []error
	for path, text := range files {
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
	}
	bus := filepath.Dir(device)
	for dir, subsystem := range map[string]string{filepath.Dir(bus): "pci", face: "usb", device: "usb", bus: "usb"} {
		if _, err := os.Lstat(dir + "/subsystem"); err != nil {
			errs = append(errs, os.Symlink("/sys/bus/"+subsystem, dir+"/subsystem"))
		}
	}
	m.mu.Lock()
	m.cameras[fmt.Sprintf("/dev/video%d", number)] = k
	m.mu.Unlock()
	class := m.class(number)
	errs = append(errs, os.Symlink(face, node+"/device"), os.MkdirAll(filepath.Dir(class), 0o700), os.Symlink(node, class))
	return errors.Join(errs...)
}

// Unplug takes it out; the kernel then answers ENODEV.
func (m *Machine) Unplug(number int) error {
	class := m.class(number)
	real, err := filepath.EvalSymlinks(class)
	if err != nil {
		return err
	}
	err = errors.Join(os.Remove(class), os.RemoveAll(filepath.Dir(filepath.Dir(filepath.Dir(real)))))
	name := fmt.Sprintf("/dev/video%d", number)
	m.mu.Lock()
	k := m.cameras[name]
	delete(m.cameras, name)
	m.mu.Unlock()
	k.vanish()
	return err
}
