package fleet

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Commands that this version knows. Every other name is refused with ReasonUnknown.
const (
	// CommandStatus asks for the device's status; its args are {}.
	CommandStatus = "status"
	// CommandSubjectDelete erases one subject; its args are {"subject": id}.
	CommandSubjectDelete = "subject.delete"
)

const (
	commandVersion = 1
	// MaxCommandBytes bounds a signed command before anything of it is parsed.
	MaxCommandBytes = 16 << 10
	// MaxCommandLifetime bounds exp-iat, and with it how long a ledger entry must be kept.
	MaxCommandLifetime = 24 * time.Hour
	// ClockLeeway is the difference of clocks between authority and device that is forgiven.
	ClockLeeway = time.Minute
	// maxUnix is 9999-12-31T23:59:59Z; later times are malformed.
	maxUnix = 253402300799
	// maxSubjectBytes bounds the subject id in args.
	maxSubjectBytes = 64
)

// Command is one order of the fleet authority to one device.
type Command struct {
	ID       string // 16 to 64 bytes of 0-9, a-f and '-': a UUID or hex; unique per device for MaxCommandLifetime at least
	Tenant   string
	Device   string
	Name     string          // one of the Command constants
	Args     json.RawMessage // an object, of the shape that belongs to Name
	IssuedAt time.Time       // whole seconds
	Expires  time.Time       // whole seconds, at most MaxCommandLifetime after IssuedAt
}

// Digest identifies the content of c, however it was signed. A ledger stores it with the id, so that another command
// under a used id is told from a repeat (ErrConflict).
func (c Command) Digest() [sha256.Size]byte {
	payload, err := c.encode()
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(payload)
}

// Subject returns the subject id of a CommandSubjectDelete.
func (c Command) Subject() (string, error) {
	if c.Name != CommandSubjectDelete {
		return "", fmt.Errorf("cannot read the subject of command %q: it has none", c.Name)
	}
	return subjectArg(c.Args)
}

func (c Command) encode() ([]byte, error) {
	return json.Marshal(claims{
		Version: commandVersion, ID: c.ID, Tenant: c.Tenant, Device: c.Device, Command: c.Name, Args: c.Args,
		IssuedAt: c.IssuedAt.Unix(), Expires: c.Expires.Unix(),
	})
}

// claims is the signed payload.
type claims struct {
	Version  int             `json:"v"`
	ID       string          `json:"id"`
	Tenant   string          `json:"tenant"`
	Device   string          `json:"device"`
	Command  string          `json:"cmd"`
	Args     json.RawMessage `json:"args"`
	IssuedAt int64           `json:"iat"`
	Expires  int64           `json:"exp"`
}

var errClaims = errors.New("claims are malformed")

// parseClaims reads a verified payload: exact members, bounded id, a known version, times in order. It checks neither
// audience nor freshness. With an error the command holds its id if that could be read.
func parseClaims(payload []byte) (Command, error) {
	obj, err := strictObject(payload, "v", "id", "tenant", "device", "cmd", "args", "iat", "exp")
	if err != nil {
		return Command{}, err
	}
	if v, err := member[int64](obj, "v"); err != nil || v != commandVersion {
		return Command{}, fmt.Errorf("%w: version", errClaims)
	}
	var c Command
	if c.ID, err = member[string](obj, "id"); err != nil || !validCommandID(c.ID) {
		return Command{}, fmt.Errorf("%w: id", errClaims)
	}
	for key, dst := range map[string]*string{"tenant": &c.Tenant, "device": &c.Device, "cmd": &c.Name} {
		if *dst, err = member[string](obj, key); err != nil {
			return c, err
		}
	}
	if c.IssuedAt, err = unixMember(obj, "iat"); err != nil {
		return c, err
	}
	if c.Expires, err = unixMember(obj, "exp"); err != nil {
		return c, err
	}
	if !c.Expires.After(c.IssuedAt) {
		return c, fmt.Errorf("%w: exp is not after iat", errClaims)
	}
	c.Args = obj["args"]
	return c, nil
}

func unixMember(obj map[string]json.RawMessage, key string) (time.Time, error) {
	sec, err := member[int64](obj, key)
	if err != nil || sec < 0 || sec > maxUnix {
		return time.Time{}, fmt.Errorf("%w: %s", errClaims, key)
	}
	return time.Unix(sec, 0).UTC(), nil
}

func validCommandID(id string) bool {
	if len(id) < 16 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && c != '-' {
			return false
		}
	}
	return true
}

// checkArgs reports whether name is known and whether args has its shape.
func checkArgs(name string, args json.RawMessage) (known bool, err error) {
	switch name {
	case CommandStatus:
		_, err = strictObject(args)
		return true, err
	case CommandSubjectDelete:
		_, err = subjectArg(args)
		return true, err
	}
	return false, nil
}

func subjectArg(args json.RawMessage) (string, error) {
	obj, err := strictObject(args, "subject")
	if err != nil {
		return "", err
	}
	id, err := member[string](obj, "subject")
	if err != nil {
		return "", err
	}
	if len(id) > maxSubjectBytes || ValidateName(id) != nil {
		return "", fmt.Errorf("%w: subject", errClaims)
	}
	return id, nil
}
