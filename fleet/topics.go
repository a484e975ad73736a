package fleet

import (
	"errors"
	"fmt"
	"strings"
)

// Classes with a topic of their own. Every other class goes to the event topic.
const (
	// ClassResult marks answers to commands.
	ClassResult = "result"
	// ClassGap marks what the outbox had to drop: its body says how many records, which ids and why.
	ClassGap = "gap"
)

const (
	topicRoot = "vigil/1"
	// maxNameBytes bounds tenant, device and class names; the longest topic then stays below 160 bytes.
	maxNameBytes = 64
	// managementName is the certificate name of the management side; no device may carry it.
	managementName = "management"
)

// ErrName is matched by callers that want to tell a bad name from other configuration errors.
var ErrName = errors.New("name is not allowed")

// ValidateName checks a tenant, device or class name: 1 to 64 bytes of a-z, A-Z, 0-9, '.', '_' and '-', starting with a
// letter or digit. MQTT wildcards, separators and NUL are therefore impossible. The error matches ErrName.
func ValidateName(name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("%w: it has %d bytes, wanted 1 to %d", ErrName, len(name), maxNameBytes)
	}
	for i := range len(name) {
		if !nameByte(name[i], i == 0) {
			return fmt.Errorf("%w: byte %d is %q; use letters, digits, '.', '_' and '-'", ErrName, i, name[i])
		}
	}
	return nil
}

func nameByte(c byte, first bool) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	case c == '.', c == '_', c == '-':
		return !first
	}
	return false
}

// Topics are the MQTT topics of one device.
type Topics struct {
	tenant, device string
}

// NewTopics validates both names. "management" is reserved for the management side's certificate. Errors match ErrName.
func NewTopics(tenant, device string) (Topics, error) {
	if err := ValidateName(tenant); err != nil {
		return Topics{}, fmt.Errorf("cannot use tenant %q: %w", tenant, err)
	}
	if err := ValidateName(device); err != nil {
		return Topics{}, fmt.Errorf("cannot use device %q: %w", device, err)
	}
	if device == managementName {
		return Topics{}, fmt.Errorf("cannot use device %q: %w: it is reserved for the management side", device, ErrName)
	}
	return Topics{tenant: tenant, device: device}, nil
}

// Tenant returns the tenant's name.
func (t Topics) Tenant() string { return t.tenant }

// Device returns the device's name.
func (t Topics) Device() string { return t.device }

// ClientID is the MQTT client id, "tenant/device"; a broker should refuse it to any other certificate.
func (t Topics) ClientID() string { return t.tenant + "/" + t.device }

// Birth is the retained self description.
func (t Topics) Birth() string { return t.up("birth") }

// State is the retained online flag, also the topic of the will.
func (t Topics) State() string { return t.up("state") }

// Event carries records of every class without a topic of its own.
func (t Topics) Event() string { return t.up("event") }

// Result carries answers to commands.
func (t Topics) Result() string { return t.up("result") }

// Gap carries gap markers.
func (t Topics) Gap() string { return t.up("gap") }

// Command is the only topic a device subscribes to.
func (t Topics) Command() string { return t.base() + "/down/command" }

// ForClass returns the topic on which records of class are published.
func (t Topics) ForClass(class string) string {
	switch class {
	case ClassResult:
		return t.Result()
	case ClassGap:
		return t.Gap()
	}
	return t.Event()
}

func (t Topics) base() string          { return topicRoot + "/" + t.tenant + "/" + t.device }
func (t Topics) up(leaf string) string { return t.base() + "/up/" + leaf }

// ParseUp splits a topic below some device's "up" tree into the device's topics and the leaf ("birth", "state", "event",
// "result" or "gap"). It is what the management side does with the topic of each message; errors match ErrName.
func ParseUp(topic string) (Topics, string, error) {
	parts := strings.Split(topic, "/")
	if len(parts) != 6 || parts[0]+"/"+parts[1] != topicRoot || parts[4] != "up" {
		return Topics{}, "", fmt.Errorf("cannot read topic: %w: wanted %s/<tenant>/<device>/up/<leaf>", ErrName, topicRoot)
	}
	t, err := NewTopics(parts[2], parts[3])
	if err != nil {
		return Topics{}, "", err
	}
	switch parts[5] {
	case "birth", "state", "event", "result", "gap":
		return t, parts[5], nil
	}
	return Topics{}, "", fmt.Errorf("cannot read topic: %w: unknown leaf", ErrName)
}

// SubscribeAll is the filter with which the management side of a tenant sees all its devices.
func SubscribeAll(tenant string) (string, error) {
	if err := ValidateName(tenant); err != nil {
		return "", fmt.Errorf("cannot use tenant %q: %w", tenant, err)
	}
	return topicRoot + "/" + tenant + "/+/up/#", nil
}
