package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// service reads the unit, the values of each key in order.
func service(t *testing.T) (text string, keys map[string][]string) {
	t.Helper()
	data, err := os.ReadFile("../systemd/vigild.service")
	if err != nil {
		t.Fatal(err)
	}
	keys = map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			keys[key] = append(keys[key], value)
		}
	}
	return string(data), keys
}

// TestEveryDriverMayOpenItsDevices: the unit lets the daemon open what drivers of sensors and outputs open, and the rules of udev
// give the groups that it is a member of.
func TestEveryDriverMayOpenItsDevices(t *testing.T) {
	_, keys := service(t)
	rules, err := os.ReadFile("../systemd/60-vigil.rules")
	if err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile("../systemd/vigil.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	groups := strings.Fields(strings.Join(keys["SupplementaryGroups"], " "))
	for class, group := range map[string]string{
		"video4linux": "video", "ttyS": "dialout", "ttyAMA": "dialout", "ttyTHS": "dialout", "ttymxc": "dialout", "ttyUSB": "dialout", "ttyACM": "dialout", "gpiochip": "gpio",
	} {
		if !slices.Contains(keys["DeviceAllow"], "char-"+class+" rw") {
			t.Errorf("the unit does not allow %s", class)
		}
		if !slices.Contains(groups, group) {
			t.Errorf("the daemon is no member of %s, whose is %s", group, class)
		}
		if !regexp.MustCompile(`(?m)^SUBSYSTEM.*` + class + `.*GROUP="` + group + `"`).Match(rules) {
			t.Errorf("no rule gives %s to %s", class, group)
		}
	}
	if !regexp.MustCompile(`(?m)^g gpio `).Match(users) {
		t.Error("nobody makes the group gpio, without which the unit does not start")
	}
	for _, module := range []string{"videodev", "usbserial", "cdc_acm"} { // classes that come with a module
		want := "modprobe@" + module + ".service"
		if !strings.Contains(strings.Join(keys["Wants"], " "), want) || !strings.Contains(strings.Join(keys["After"], " "), want) {
			t.Errorf("%s is not loaded before the start: a device that is plugged in later could not be opened", module)
		}
	}
	if keys["DevicePolicy"][0] != "closed" {
		t.Errorf("DevicePolicy=%s", keys["DevicePolicy"][0])
	}
}

// TestTheUnitIsValid asks systemd itself. The program and the user are not here, so others stand in for them.
func TestTheUnitIsValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the unit is not verified")
	}
	text, _ := service(t)
	text = regexp.MustCompile(`(?m)^ExecStart=.*$`).ReplaceAllString(text, "ExecStart=/bin/true")
	text = regexp.MustCompile(`(?m)^Documentation=.*$`).ReplaceAllString(text, "")
	unit := filepath.Join(t.TempDir(), "vigild.service")
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("vigild.service")) {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil && len(out) == 0 {
		t.Skipf("systemd-analyze does not run here: %v", err)
	}
	out, err = exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold=20", unit).CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("xposure")) {
		t.Skipf("systemd-analyze security does not run here: %v: %.200s", err, out)
	}
	if err != nil {
		t.Errorf("the unit is exposed more than 2.0 of 10: %v\n%s", err, out)
	}
	t.Logf("%s", out[max(0, bytes.LastIndex(bytes.TrimSpace(out), []byte("\n"))):])
}
