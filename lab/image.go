package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// guestModules are loaded by the guest before its suites, with what they depend on. Modules with parameters that a suite
// chooses are carried but loaded by the suite.
var guestModules = []string{"configfs", "dummy_hcd", "uvcvideo", "gadgetfs", "vivid"}

// writeImage makes an initramfs (cpio, "newc", as in the kernel's Documentation/driver-api/early-userspace/buffer-format)
// of the guest's program as /init and of modules, in the order of loading, with their list in /modules.
func writeImage(path, guest, root string, modules []string) error {
	init, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	all, err := moduleFiles(root)
	if err != nil {
		return err
	}
	var order []string
	for _, m := range modules {
		if order, err = withDependencies(all, m, order); err != nil {
			return err
		}
	}
	var c cpio
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "lib"} {
		c.add(dir, fs.ModeDir|0o755, nil)
	}
	c.add("init", 0o755, init)
	for _, m := range order {
		data, err := os.ReadFile(all[m])
		if err != nil {
			return err
		}
		c.add("lib/"+m+".ko", 0o644, data)
	}
	c.add("modules", 0o644, []byte(strings.Join(order, "\n")))
	c.add("TRAILER!!!", 0, nil)
	return os.WriteFile(path, c.Bytes(), 0o600)
}

// moduleFiles maps the names of modules to their files.
func moduleFiles(root string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "lib/modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			all[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	return all, err
}

// withDependencies appends a module behind those that it needs.
func withDependencies(all map[string]string, name string, order []string) ([]string, error) {
	if slices.Contains(order, name) {
		return order, nil
	}
	path, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("the kernel package has no module %s", name)
	}
	needs, err := dependencies(path)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", name, err)
	}
	for _, n := range needs {
		if order, err = withDependencies(all, n, order); err != nil {
			return nil, err
		}
	}
	return append(order, name), nil
}

// dependencies reads "depends=a,b" of the section .modinfo.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	data, err := s.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := strings.CutPrefix(string(field), "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}

// cpio is an archive in the making.
type cpio struct {
	bytes.Buffer
	inode int
}

func (c *cpio) add(name string, mode fs.FileMode, data []byte) {
	c.inode++
	bits := uint32(mode.Perm()) | 0o100000
	if mode.IsDir() {
		bits = uint32(mode.Perm()) | 0o040000
	}
	fmt.Fprintf(c, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, bits, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.pad()
	c.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}
