package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func readGood(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/good.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEveryKey(t *testing.T) {
	got, err := Load("testdata/good.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Version: 1, StateDir: "/srv/vigil",
		TPM: TPM{Address: "unix:/run/swtpm.sock", PCRs: []int{0, 7, 14}},
		Runtime: Runtime{Library: "/opt/ort/libonnxruntime.so.1", TensorRT: "/opt/tensorrt", Threads: 4, Workers: 3, Affinity: "1;2;3", Kernels: KernelsOff,
			Device: Device{ID: 1, MemoryMiB: 512, Graphs: true, WorkspaceMiB: 256, EngineCache: "/run/vigil/engines", TimingCache: "/var/cache/vigil",
				FP16: true, DLACore: 2, BuilderLevel: 4, CPUForTheRest: true},
			Provider: Provider{Name: "Rocket", Library: "/opt/rocket/libep.so", Options: map[string]string{"thrust": "3"}}},
		Models: Models{Face: "face-other", Finger: "finger-other"},
		Policy: Policy{
			VerifyThreshold: 0.31, IdentifyThreshold: 0.41, DuplicateThreshold: 0.51, EnrollQuality: 0.4, ProbeQuality: 0.1, Liveness: "required", LivenessThreshold: 0.7,
			EnrollSamples: 5, ConfirmFrames: 3, UnknownFrames: 8, EventHold: Duration(1500 * time.Millisecond), MaxFailures: 0,
			FailureWindow: Duration(150 * time.Second), Lockout: Duration(time.Hour), AuditUnknown: false,
			FrameDeadline: Duration(300 * time.Millisecond), EnrollTimeout: Duration(10 * time.Second), APIQueue: 4, APIDeadline: Duration(1250 * time.Millisecond), KeepEnrolmentCrops: true,
			SecondFactor: "second", SecondTimeout: Duration(20 * time.Second),
			Finger: FingerPolicy{VerifyThreshold: 0.32, IdentifyThreshold: 0.42, DuplicateThreshold: 0.52, EnrollQuality: 0.5, ProbeQuality: 0.2},
		},
		API: API{
			Socket: "/run/vigil/vigild.sock", Others: ScopeNone, RatePerSecond: 12.5, Burst: 25, KServe: true,
			TCP: TCP{
				Address: "0.0.0.0:8443", Certificate: "/etc/vigil/api.pem", Key: KeyInTPM, ClientCA: "/etc/vigil/clients.pem",
				Clients: []TCPClient{{"front-desk.example", ScopeEnroller}},
			},
			Peers: []Peer{{"user:kiosk", ScopeViewer}, {"group:100", ScopeEnroller}},
		},
		Fleet: Fleet{
			Broker: "broker.example:8883", ServerName: "mqtt.example", Tenant: "acme-2", CA: "/etc/vigil/ca.pem",
			Certificate: "/etc/vigil/device.pem", ManagementKey: "/etc/vigil/management.key",
			CommandKeys: []string{"/etc/vigil/commands-1.pem", "/etc/vigil/commands-2.pem"},
		},
		Bus: Bus{Socket: "/run/vigil/bus.sock", Readers: []string{"user:viewer", "group:44"}, Slots: 16, FrameMiB: 4},
		Log: Log{Level: "debug", Format: "json"},
		Sensors: []Sensor{
			{Name: "door", Driver: "replay", Path: "/srv/clips/door.mjpeg", Rate: 12.5, Speed: 2, Step: true, Loop: true, Repeat: 3, Width: 640, Height: 480},
			{Name: "gate", Driver: "replay", Path: "/srv/clips/gate"},
			{Name: "reader", Driver: "synth", Modality: "finger", DPI: 512, Seed: 7, Fingers: 3, Impressions: 4, FirstTouch: 2, Severity: "normal"},
			{Name: "module", Driver: "uart", Modality: "finger", Path: "/dev/ttyUSB0", Baud: 115200, Password: 1<<32 - 1, Light: true},
			{
				Name: "porch", Driver: "v4l2", Path: "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0", Format: "mjpeg", Width: 1280,
				Height: 720, Rate: 30, USB: "046d:085e", Serial: "A1B2", Card: "HD Webcam", Profile: "/etc/vigil/porch.json",
				Infrared: "porch-ir", InfraredWithin: Duration(12 * time.Millisecond),
			},
			{Name: "locked", Driver: "uart", Modality: "finger", Path: "/dev/ttyUSB2", PasswordFile: "/etc/vigil/module.password"},
			{Name: "porch-ir", Driver: "v4l2", Path: "/dev/video4", Format: "grey"},
			{Name: "second", Driver: "fprint", Modality: "finger", Path: "/run/other-bus"},
		},
		Actuators: []Actuator{
			{Name: "strike", Driver: "relay", Sensor: "gate", IntentSensor: "reader", IntentWindow: Duration(8 * time.Second), Chip: "/dev/gpiochip0", Line: 17, ActiveLow: true, Hold: Duration(4 * time.Second)},
			{Name: "wires", Driver: "wiegand", Sensor: "reader", Chip: "/dev/gpiochip1", D0: 5, D1: 6, Bits: 34, Facility: 300},
			{Name: "panel", Driver: "osdp", Sensor: "module", Path: "/dev/ttyUSB1", Baud: 38400, Address: 3, KeyFile: "/etc/vigil/osdp.key", Card: 99, Cards: map[string]int64{"0123456789abcdef": 1001}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	keys, err := indexOf([]byte(readGood(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(reflect.TypeFor[Config](), "") {
		if !usedSomewhere(keys, key) {
			t.Errorf("testdata/good.toml does not use the key %s", key)
		}
	}
}

// usedSomewhere reports whether an entry of the list that the key is in has it.
func usedSomewhere(keys index, key string) bool {
	for i := range 8 {
		if keys[strings.Replace(key, "[0]", fmt.Sprintf("[%d]", i), 1)].line > 0 {
			return true
		}
	}
	return false
}

// keysOf lists the dotted keys of a structure.
func keysOf(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + f.Tag.Get("toml")
		switch {
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(f.Type, key+".")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			keys = append(keys, keysOf(f.Type.Elem(), key+"[0].")...)
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

func TestEmptyFileIsDefault(t *testing.T) {
	got, err := Parse("x", []byte("version = 1\n"))
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("%v, %+v", err, got)
	}
	a, b := Default(), Default()
	a.TPM.PCRs[0] = 99
	if b.TPM.PCRs[0] == 99 {
		t.Error("two defaults share memory")
	}
}

// TestErrors: each row changes one place of the good file; the error must name the file, that line, and the key.
func TestErrors(t *testing.T) {
	good := readGood(t)
	for _, c := range []struct{ name, old, new, key, want string }{
		{"rate of a module", "baud = 115200", "baud = 10000", "sensors[3].baud", "multiple of 9600"},
		{"password of a module", "password = 4294967295", "password = 4294967296", "sensors[3].password", "32 bits"},
		{"faces at a module", "modality = \"finger\"\npath = \"/dev/ttyUSB0\"", "modality = \"face\"\npath = \"/dev/ttyUSB0\"", "sensors[3].modality", "reads fingers"},
		{"key of another driver", `severity = "normal"`, "baud = 9600", "sensors[2].baud", "driver uart"},
		{"driver of an actuator", `driver = "relay"`, `driver = "servo"`, "actuators[0].driver", "one of relay"},
		{"sensor of an actuator", `sensor = "gate"`, `sensor = "moon"`, "actuators[0].sensor", "no sensor"},
		{"intent where the identity is", `intent_sensor = "reader"`, `intent_sensor = "gate"`, "actuators[0].intent_sensor", "another sensor"},
		{"chip", `chip = "/dev/gpiochip0"`, `chip = "gpiochip0"`, "actuators[0].chip", "absolute"},
		{"hold", `hold = "4s"`, `hold = "1h"`, "actuators[0].hold", "10m"},
		{"one line for both", "d1 = 6", "d1 = 5", "actuators[1].d1", "the same"},
		{"bits", "bits = 34", "bits = 37", "actuators[1].bits", "26 or 34"},
		{"facility", "facility = 300", "facility = 70000", "actuators[1].facility", "0 to 65535"},
		{"address", "address = 3", "address = 127", "actuators[2].address", "0 to 126"},
		{"card", "card = 99", "card = 65536", "actuators[2].card", "65535"},
		{"name of an actuator", `name = "wires"`, `name = "strike"`, "actuators[1].name", "twice"},
		{"unknown key", `face = "face-other"`, `fase = "face-other"`, "models.fase", "unknown key"},
		{"unknown table", "[models]", "[modells]", "modells", "unknown key"},
		{"unknown key of a sensor", "repeat = 3", "repeats = 3", "sensors.repeats", "unknown key"},
		{"unknown key at the top", `state_dir = "/srv/vigil"`, `statedir = "/srv/vigil"`, "statedir", "unknown key"},
		{"word for a number", "threads = 4", `threads = "four"`, "runtime.threads", "string"},
		{"number for a word", `level = "debug"`, "level = 5", "log.level", "integer"},
		{"fraction for a number", "threads = 4", "threads = 4.5", "runtime.threads", "float"},
		{"word for a list", "pcrs = [0, 7, 14]", `pcrs = "7"`, "tpm.pcrs", "string"},
		{"number for a switch", "audit_unknown = false", "audit_unknown = 0", "policy.audit_unknown", "integer"},
		{"number for a duration", `lockout = "1h"`, "lockout = 60000000000", "policy.lockout", "no unit"},
		{"no duration", `lockout = "1h"`, `lockout = "an hour"`, "policy.lockout", "is not a duration"},
		{"number too large", "threads = 4", "threads = 99999999999999999999", "", ""},
		{"syntax", "threads = 4", "threads = = 4", "", ""},
		{"cut off", `level = "debug"`, `level = "debug`, "", ""},
		{"key twice", "threads = 4", "threads = 4\nthreads = 5", "threads", ""},
		{"other version", "version = 1", "version = 2", "version", "reads version 1"},
		{"version 0", "version = 1", "version = 0", "version", "reads version 1"},
		{"relative state", `"/srv/vigil"`, `"state"`, "state_dir", "absolute"},
		{"TPM address", `"unix:/run/swtpm.sock"`, `"tcp:host"`, "tpm.address", "/dev/tpmrm0"},
		{"no registers", "[0, 7, 14]", "[]", "tpm.pcrs", "at least one"},
		{"register 24", "[0, 7, 14]", "[7, 24]", "tpm.pcrs", "0 to 23"},
		{"negative register", "[0, 7, 14]", "[-1]", "tpm.pcrs", "0 to 23"},
		{"register twice", "[0, 7, 14]", "[7, 0, 7]", "tpm.pcrs", "twice"},
		{"unknown kernels", `kernels = "off"`, `kernels = "fast"`, "runtime.kernels", "auto"},
		{"no threads", "threads = 4", "threads = 0", "runtime.threads", "1 to 64"},
		{"many threads", "threads = 4", "threads = 65", "runtime.threads", "1 to 64"},
		{"verify threshold", "verify_threshold = 0.31", "verify_threshold = 1.0", "policy.verify_threshold", "below 1"},
		{"identify threshold", "identify_threshold = 0.41", "identify_threshold = -0.1", "policy.identify_threshold", "from 0"},
		{"duplicate threshold", "duplicate_threshold = 0.51", "duplicate_threshold = nan", "policy.duplicate_threshold", "NaN"},
		{"enroll quality", "enroll_quality = 0.4", "enroll_quality = 1.1", "policy.enroll_quality", "0 to 1"},
		{"probe quality", "probe_quality = 0.1", "probe_quality = inf", "policy.probe_quality", "0 to 1"},
		{"enroll samples", "enroll_samples = 5", "enroll_samples = 0", "policy.enroll_samples", "1 to 16"},
		{"confirm frames", "confirm_frames = 3", "confirm_frames = 17", "policy.confirm_frames", "1 to 16"},
		{"unknown frames", "unknown_frames = 8", "unknown_frames = -1", "policy.unknown_frames", "1 to 16"},
		{"event hold", `event_hold = "1.5s"`, `event_hold = "9ms"`, "policy.event_hold", "10ms to 24h"},
		{"failures", "max_failures = 0", "max_failures = 101", "policy.max_failures", "100"},
		{"failure window", `"2m30s"`, `"-1s"`, "policy.failure_window", "10ms to 24h"},
		{"lockout", `lockout = "1h"`, `lockout = "25h"`, "policy.lockout", "10ms to 24h"},
		{"frame deadline", `"300ms"`, `"0s"`, "policy.frame_deadline", "10ms to 24h"},
		{"enroll timeout", `enroll_timeout = "10s"`, `enroll_timeout = "48h"`, "policy.enroll_timeout", "10ms to 24h"},
		{"queue", "api_queue = 4", "api_queue = 0", "policy.api_queue", "1 to 1024"},
		{"relative socket", `"/run/vigil/vigild.sock"`, `"vigild.sock"`, "api.socket", "absolute"},
		{"scope of others", `others = "none"`, `others = "root"`, "api.others", "one of none, viewer"},
		{"negative rate", "rate_per_second = 12.5", "rate_per_second = -1.0", "api.rate_per_second", "0 for no limit"},
		{"no burst", "burst = 25", "burst = 0", "api.burst", "1 to 1000000"},
		{"peer of no kind", `who = "user:kiosk"`, `who = "kiosk"`, "api.peers[0].who", "user:NAME"},
		{"peer without a name", `who = "user:kiosk"`, `who = "user:"`, "api.peers[0].who", "user:NAME"},
		{"peer of no scope", `scope = "viewer"`, `scope = "none"`, "api.peers[0].scope", "one of viewer"},
		{"address of no port", `"0.0.0.0:8443"`, `"0.0.0.0"`, "api.tcp.address", "host:port"},
		{"relative certificate", `"/etc/vigil/api.pem"`, `"api.pem"`, "api.tcp.certificate", "absolute"},
		{"relative key", `key = "tpm"`, `key = "key.pem"`, "api.tcp.key", "absolute"},
		{"relative authority", `"/etc/vigil/clients.pem"`, `""`, "api.tcp.client_ca", "absolute"},
		{"rest of a network", `address = "0.0.0.0:8443"`, `address = ""`, "api.tcp.address", "leave them all out"},
		{"client without a name", `"front-desk.example"`, `""`, "api.tcp.clients[0].name", "is empty"},
		{"long socket", `"/run/vigil/vigild.sock"`, `"/` + strings.Repeat("s", 103) + `"`, "api.socket", "103 bytes"},
		{"broker without a port", `"broker.example:8883"`, `"broker.example"`, "fleet.broker", "host:port"},
		{"broker as an address of the web", `"broker.example:8883"`, `"mqtts://broker.example:8883"`, "fleet.broker", "host:port"},
		{"broker without a host", `"broker.example:8883"`, `":8883"`, "fleet.broker", "host:port"},
		{"broker's port", `"broker.example:8883"`, `"broker.example:888883"`, "fleet.broker", "host:port"},
		{"tenant", `"acme-2"`, `"acme/2"`, "fleet.tenant", "a-z"},
		{"tenant of wildcards", `"acme-2"`, `"+"`, "fleet.tenant", "a-z"},
		{"no authority", `ca = "/etc/vigil/ca.pem"`, ``, "fleet.ca", "absolute path"},
		{"relative certificate", `"/etc/vigil/device.pem"`, `"device.pem"`, "fleet.certificate", "absolute path"},
		{"no management key", `management_key = "/etc/vigil/management.key"`, ``, "fleet.management_key", "absolute path"},
		{"no command keys", `["/etc/vigil/commands-1.pem", "/etc/vigil/commands-2.pem"]`, "[]", "fleet.command_keys", "at least one"},
		{"relative command key", `"/etc/vigil/commands-2.pem"`, `"commands.pem"`, "fleet.command_keys", "absolute path"},
		{"log level", `level = "debug"`, `level = "loud"`, "log.level", "debug, info, warn, error"},
		{"log format", `format = "json"`, `format = "xml"`, "log.format", "text, json"},
		{"sensor's name", `name = "gate"`, `name = "Gate 1"`, "sensors[1].name", "a-z"},
		{"sensor without a name", `name = "gate"`, ``, "sensors[1].name", "a-z"},
		{"sensor twice", `name = "gate"`, `name = "door"`, "sensors[1].name", "twice"},
		{"sensor's driver", "driver = \"replay\"\npath = \"/srv/clips/gate\"", "driver = \"v4l3\"\npath = \"/srv/clips/gate\"", "sensors[1].driver", "replay"},
		{"sensor's path", `"/srv/clips/door.mjpeg"`, `"door.mjpeg"`, "sensors[0].path", "absolute"},
		{"rate", "rate = 12.5", "rate = -1.0", "sensors[0].rate", "0 to 1000"},
		{"rate is no number", "rate = 12.5", "rate = nan", "sensors[0].rate", "0 to 1000"},
		{"speed", "speed = 2.0", "speed = 1001.0", "sensors[0].speed", "0 to 1000"},
		{"repeat", "repeat = 3", "repeat = -3", "sensors[0].repeat", "0 to 1000"},
		{"width", "width = 640", "width = -640", "sensors[0].width", "0 to 65535"},
		{"height", "height = 480", "height = 100000", "sensors[0].height", "0 to 65535"},
	} {
		if strings.Count(good, c.old) != 1 {
			t.Fatalf("%s: %q is %d times in the good file", c.name, c.old, strings.Count(good, c.old))
		}
		got, err := Parse("vigild.toml", []byte(strings.Replace(good, c.old, c.new, 1)))
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if !reflect.DeepEqual(got, Config{}) {
			t.Errorf("%s: a configuration beside the error", c.name)
		}
		line := 1 + strings.Count(good[:strings.Index(good, c.old)], "\n")
		lines := []int{line, line + strings.Count(c.old, "\n"), line + strings.Count(c.new, "\n")}
		if c.new == "" { // a key that was left out: the line of its table
			lines = []int{1 + strings.Count(good[:strings.LastIndex(good[:strings.Index(good, c.old)], "[")], "\n")}
		}
		var e *Error
		if !errors.As(err, &e) || e.File != "vigild.toml" || !slicesContain(lines, e.Line) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want vigild.toml:%v and %q", c.name, err, lines, c.want)
			continue
		}
		if c.key != "" && e.Key != c.key {
			t.Errorf("%s: %v names the key %q, want %q", c.name, err, e.Key, c.key)
		}
		if !regexp.MustCompile(`^vigild\.toml:[0-9]+: `).MatchString(err.Error()) {
			t.Errorf("%s: %v does not begin with the place", c.name, err)
		}
	}
}

func slicesContain(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

func TestVersionIsAskedForFirst(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"missing", "state_dir = \"/srv\"\n", "vigild.toml:1: version: is missing: begin the file with version = 1"},
		{"empty file", "", "vigild.toml:1: version: is missing: begin the file with version = 1"},
		{"in a table", "[tpm]\nversion = 1\n", "vigild.toml:1: version: is missing"},
		{"from the future, with keys of the future", "version = 2\n\n[future]\nx = 1\n", "vigild.toml:1: version: 2 cannot be read: this program reads version 1"},
		{"a word", "version = \"1\"\n", "vigild.toml:1: version: "},
	} {
		_, err := Parse("vigild.toml", []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestEveryPlaceIsFound(t *testing.T) {
	for _, c := range []struct {
		name, text string
		line       int
		key        string
	}{
		{"inline table", "version = 1\nruntime = { threads = 0 }\n", 2, "runtime.threads"},
		{"dotted key", "version = 1\n\nruntime.threads = 0\n", 3, "runtime.threads"},
		{"dotted key, its neighbour is missing", "version = 1\nfleet.broker = \"a:1\"\nfleet.command_keys = [\"/k\"]\nfleet.ca = \"/c\"\nfleet.certificate = \"/d\"\n", 2, "fleet.management_key"},
		{"list of inline tables", "version = 1\nsensors = [\n { name = \"a\", driver = \"replay\", path = \"/a\" },\n { name = \"b\", driver = \"replay\", path = \"b\" },\n]\n", 4, "sensors[1].path"},
		{"too many sensors", "version = 1\n" + strings.Repeat("[[sensors]]\nname=\"s\"\n", 17), 2, "sensors"},
		{"quoted key", "version = 1\n[\"runtime\"]\n'threads' = 0\n", 3, "runtime.threads"},
		{"Windows line ends", "version = 1\r\n\r\n[runtime]\r\nthreads = 0\r\n", 4, "runtime.threads"},
		{"behind a long string", "version = 1\nstate_dir = \"\"\"\n/a\n/b\"\"\"\n[runtime]\nthreads = 0\n", 6, "runtime.threads"},
	} {
		_, err := Parse("f", []byte(c.text))
		found := false
		for _, e := range all(err) {
			found = found || e.Line == c.line && e.Key == c.key
		}
		if !found {
			t.Errorf("%s: %v, want f:%d: %s", c.name, err, c.line, c.key)
		}
	}
}

// all lists the errors that were joined.
func all(err error) (list []*Error) {
	var one *Error
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range j.Unwrap() {
			list = append(list, all(e)...)
		}
	} else if errors.As(err, &one) {
		list = append(list, one)
	}
	return list
}

func TestAllErrorsAtOnceInTheOrderOfTheFile(t *testing.T) {
	text := "version = 1\n[policy]\nlockout = \"99h\"\nevent_hold = \"1ms\"\nenroll_samples = 0\nverify_threshold = 5.0\n[log]\nlevel = \"x\"\n[[sensors]]\nname = \"?\"\n"
	_, first := Parse("f", []byte(text))
	list := all(first)
	if len(list) != 8 {
		t.Errorf("%d errors, want 8: four of the policy, the level, name, driver and path of the sensor:\n%v", len(list), first)
	}
	for i := range list {
		if i > 0 && list[i].Line < list[i-1].Line {
			t.Errorf("not in the order of the file:\n%v", first)
			break
		}
	}
	for range 20 {
		if _, err := Parse("f", []byte(text)); err.Error() != first.Error() {
			t.Fatalf("the same file gives\n%v\nand\n%v", first, err)
		}
	}
	_, err := Parse("f", []byte("version = 1\na = 1\n[tpm]\nb = 2\n"))
	if list := all(err); len(list) != 2 || !errors.Is(err, ErrUnknownKey) {
		t.Errorf("two unknown keys: %v", err)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.toml")
	if _, err := Load(missing); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("folder: %v", err)
	}
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, make([]byte, MaxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), big) || !strings.Contains(err.Error(), fmt.Sprint(MaxBytes)) {
		t.Errorf("too large: %v", err)
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
	}{{"300ms", 300 * time.Millisecond}, {"1.5s", 1500 * time.Millisecond}, {"1h2m3s", time.Hour + 2*time.Minute + 3*time.Second}, {"0s", 0}} {
		var d Duration
		if err := d.UnmarshalText([]byte(c.text)); err != nil || time.Duration(d) != c.want {
			t.Errorf("%s: %v, %v", c.text, time.Duration(d), err)
		}
		text, err := d.MarshalText()
		var again Duration
		if err != nil || again.UnmarshalText(text) != nil || again != d {
			t.Errorf("%s: written as %s", c.text, text)
		}
	}
	for _, text := range []string{"", "5", "5 s", "5 parsecs", "s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "300ms") {
			t.Errorf("%q: %v, want an error with an example", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(readGood(f)))
	f.Add([]byte("version = 1\n"))
	f.Add([]byte("version = 2\n[[sensors]]\n[[sensors]]\nname=1\n"))
	f.Add([]byte("version = 1\nruntime = { threads = 0 }\nsensors = [{}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			if c.Version != Version || !filepath.IsAbs(c.StateDir) || len(c.Sensors) > maxSensors {
				t.Fatalf("accepted: %+v", c)
			}
			return
		}
		if len(all(err)) == 0 {
			t.Fatalf("%T is not an *Error: %v", err, err)
		}
	})
}
