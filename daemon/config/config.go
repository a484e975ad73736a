// Package config reads vigild's configuration: one TOML file, strict and versioned.
//
// Promises: an unknown key, a value of the wrong kind or out of range, and a file of another version are errors that name
// the file, the line, the key and the remedy; nothing is guessed, nothing else is opened. What the file leaves out has
// the default that Default returns. The result is a value; it is not changed after Load and may be shared.
//
// It does not check that sockets, devices or keys exist: the doctor and the start of the daemon do.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Version is the value of the key "version" that this program reads.
const Version = 1

// MaxBytes bounds the file.
const MaxBytes = 1 << 20

// DefaultPath is where vigild looks when no --config is given.
const DefaultPath = "/etc/vigil/vigild.toml"

// Config is the whole file.
type Config struct {
	Version  int      `toml:"version"`
	StateDir string   `toml:"state_dir"` // everything the device keeps
	TPM      TPM      `toml:"tpm"`
	Runtime  Runtime  `toml:"runtime"`
	Models   Models   `toml:"models"`
	Policy   Policy   `toml:"policy"`
	API      API      `toml:"api"`
	Fleet    Fleet    `toml:"fleet"`
	Bus      Bus      `toml:"bus"`
	Log      Log      `toml:"log"`
	Sensors  []Sensor `toml:"sensors"`

	Actuators []Actuator `toml:"actuators"`
}

// TPM says where the TPM is.
type TPM struct {
	Address string `toml:"address"` // "/dev/tpmrm0" or "unix:/path"; empty finds the kernel's
	PCRs    []int  `toml:"pcrs"`    // registers of the SHA-256 bank that the root secret is bound to, at provisioning
}

// Runtime configures ONNX Runtime, and where TensorRT lies.
type Runtime struct {
	Library string `toml:"library"` // path of libonnxruntime.so.1; empty searches
	// TensorRT is the folder of TensorRT's libraries, or the path of the engine's; empty searches. A build without the tag
	// tensorrt does not look there.
	TensorRT string `toml:"tensorrt"`
	Threads  int    `toml:"threads"` // per engine
	Workers  int    `toml:"workers"` // frames of a modality at a time; 0 is the number of cores divided by threads, at least 1
	// Affinity binds an engine's threads to processors, in ONNX Runtime's notation: "1;2" for three threads.
	Affinity string `toml:"affinity"`
	// Kernels says whether our own kernels run 8-bit models on the CPU where they are faster: KernelsAuto or KernelsOff.
	Kernels  string   `toml:"kernels"`
	Device   Device   `toml:"device"`
	Provider Provider `toml:"provider"`
}

// Values of Runtime.Kernels.
const (
	KernelsAuto = "auto"
	KernelsOff  = "off"
)

// Device configures ONNX Runtime's own CUDA and TensorRT providers, where the library has them.
type Device struct {
	ID            int    `toml:"id"`
	MemoryMiB     int    `toml:"memory_mib"`       // limit of the CUDA provider's arena; 0 is none
	Graphs        bool   `toml:"graphs"`           // capture CUDA graphs
	WorkspaceMiB  int    `toml:"workspace_mib"`    // scratch memory while TensorRT builds an engine; 0 is the provider's
	EngineCache   string `toml:"engine_cache"`     // folder in memory (tmpfs) of TensorRT's engines
	TimingCache   string `toml:"timing_cache"`     // folder of TensorRT's measured kernels
	FP16          bool   `toml:"fp16"`             // TensorRT may run float layers in half precision
	DLACore       int    `toml:"dla_core"`         // above 0: deep learning accelerator of that number less 1
	BuilderLevel  int    `toml:"builder_level"`    // TensorRT's, 0 to 5; 0 is the provider's
	CPUForTheRest bool   `toml:"cpu_for_the_rest"` // nodes that a provider cannot run may run on the CPU
}

// Provider is an execution provider of ONNX Runtime that comes as a library of its own.
type Provider struct {
	Name    string            `toml:"name"`
	Library string            `toml:"library"` // absolute path; empty: there is none
	Options map[string]string `toml:"options"` // as the provider documents them
}

// Models names the bundles in use.
type Models struct {
	Face   string `toml:"face"`   // id of an imported bundle; empty takes the only one of its modality, "off" recognises no faces
	Finger string `toml:"finger"` // likewise; empty and none imported takes the one in the binary
}

// Policy decides what a score means. A threshold of 0 is the bundle's own.
type Policy struct {
	VerifyThreshold    float64  `toml:"verify_threshold"`
	IdentifyThreshold  float64  `toml:"identify_threshold"`
	DuplicateThreshold float64  `toml:"duplicate_threshold"`
	EnrollQuality      float64  `toml:"enroll_quality"` // least quality of an enrolment sample, 0..1
	ProbeQuality       float64  `toml:"probe_quality"`  // least quality of a face that is judged, 0..1
	Liveness           string   `toml:"liveness"`       // off, required: a face that is judged a presentation attack is not compared
	LivenessThreshold  float64  `toml:"liveness_threshold"`
	EnrollSamples      int      `toml:"enroll_samples"` // least number of good samples
	ConfirmFrames      int      `toml:"confirm_frames"` // frames that must agree on a person
	UnknownFrames      int      `toml:"unknown_frames"` // judged frames without a match that make a stranger
	EventHold          Duration `toml:"event_hold"`     // a face away for this long makes a new event when it returns
	MaxFailures        int      `toml:"max_failures"`   // failed verifications of one person that lock it; 0 never
	FailureWindow      Duration `toml:"failure_window"` // in this time
	Lockout            Duration `toml:"lockout"`        // how long it stays locked
	AuditUnknown       bool     `toml:"audit_unknown"`  // strangers are decisions too
	FrameDeadline      Duration `toml:"frame_deadline"` // a frame that takes longer is given up
	EnrollTimeout      Duration `toml:"enroll_timeout"` // an enrolment at a sensor ends after this
	APIQueue           int      `toml:"api_queue"`      // requests that may wait for the engines; more are refused
	APIDeadline        Duration `toml:"api_deadline"`   // a request that cannot be answered within it is refused
	// SecondFactor names a sensor of the driver fprint: a verification that matches counts when the person's finger matches there
	// too, within SecondTimeout. Empty asks for none.
	SecondFactor  string   `toml:"second_factor"`
	SecondTimeout Duration `toml:"second_timeout"`
	// KeepEnrolmentCrops keeps the pictures of enrolments, encrypted with the person's key, so that another model can be used
	// without enrolling everybody again.
	KeepEnrolmentCrops bool `toml:"keep_enrolment_crops"`

	Finger FingerPolicy `toml:"finger"` // what differs for fingers
}

// FingerPolicy are thresholds and floors for fingers; the rest of the policy is common.
type FingerPolicy struct {
	VerifyThreshold    float64 `toml:"verify_threshold"`
	IdentifyThreshold  float64 `toml:"identify_threshold"`
	DuplicateThreshold float64 `toml:"duplicate_threshold"`
	EnrollQuality      float64 `toml:"enroll_quality"`
	ProbeQuality       float64 `toml:"probe_quality"`
}

// Values of Policy.Liveness.
const (
	LivenessOff      = "off"
	LivenessRequired = "required"
)

// API configures the local interface.
type API struct {
	Socket        string  `toml:"socket"`          // UNIX socket; empty is state_dir/vigild.sock
	Others        string  `toml:"others"`          // scope of those whom the file mode lets in and Peers does not name; ScopeNone too
	RatePerSecond float64 `toml:"rate_per_second"` // requests of one client; 0 is without limit
	Burst         int     `toml:"burst"`           // requests that a client may send at once after a rest
	KServe        bool    `toml:"kserve"`          // serve the models themselves, raw embeddings and all, under /v2
	TCP           TCP     `toml:"tcp"`
	Peers         []Peer  `toml:"peers"` // users and groups of this machine, at the UNIX socket
}

// Peer gives a user or a group of this machine a scope. Who fits several entries has the highest of their scopes.
type Peer struct {
	Who   string `toml:"who"` // "user:NAME", "group:NAME", or a number instead of the name
	Scope string `toml:"scope"`
}

// TCP configures the interface on the network, with TLS 1.3 on both sides. An empty address switches it off.
type TCP struct {
	Address     string      `toml:"address"`     // host:port
	Certificate string      `toml:"certificate"` // PEM file: the server's chain
	Key         string      `toml:"key"`         // PEM file with mode 0600, or KeyInTPM
	ClientCA    string      `toml:"client_ca"`   // PEM file: the only authority trusted for clients
	Clients     []TCPClient `toml:"clients"`
}

// KeyInTPM as TCP.Key is the device's own key, which never leaves the TPM.
const KeyInTPM = "tpm"

// TCPClient gives the certificates of a name a scope. A client that is not named here needs a token.
type TCPClient struct {
	Name  string `toml:"name"` // a URI or DNS name of the certificate; its common name where it has neither
	Scope string `toml:"scope"`
}

// Scopes of clients, each of which may do what the one before may, and ScopeNone, with which a client needs a token.
const (
	ScopeNone     = "none"
	ScopeViewer   = "viewer"
	ScopeEnroller = "enroller"
	ScopeOperator = "operator"
)

// Fleet configures central management. An empty broker switches it off.
type Fleet struct {
	Broker        string   `toml:"broker"` // host:port
	ServerName    string   `toml:"server_name"`
	Tenant        string   `toml:"tenant"`
	CA            string   `toml:"ca"`             // PEM file: the only authority trusted for the broker
	Certificate   string   `toml:"certificate"`    // PEM file: this device's chain, for the key in the TPM
	ManagementKey string   `toml:"management_key"` // file: X25519 public key, base64; events are encrypted to it
	CommandKeys   []string `toml:"command_keys"`   // files: Ed25519 public keys, PEM; commands must be signed by one
}

// Log configures the log on standard error.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text or json
}

// Sensor is one source of frames.
type Sensor struct {
	Name   string `toml:"name"`
	Driver string `toml:"driver"` // DriverReplay, DriverSynth, DriverUART, DriverV4L2, DriverFprint
	// Modality is what the sensor sees: "face" or "finger". Empty is "face", unless models.face is "off".
	Modality string  `toml:"modality"`
	DPI      float64 `toml:"dpi"` // fingerprint readers: pixels per inch; 0 means 500
	Path     string  `toml:"path"`
	Rate     float64 `toml:"rate"`  // frames per second, 0 is the recording's own
	Speed    float64 `toml:"speed"` // 0 and 1 are real time
	Step     bool    `toml:"step"`  // every frame, as fast as they are taken: nothing is dropped
	Loop     bool    `toml:"loop"`
	Repeat   int     `toml:"repeat"` // times each picture is shown
	Width    int     `toml:"width"`  // pixels, raw recordings only
	Height   int     `toml:"height"`

	// Of generated fingers: those of Seed, Seed+1, ..., each touching Impressions times, for the FirstTouch-th time first.
	Seed        int64  `toml:"seed"`
	Fingers     int    `toml:"fingers"`     // 0 is without end
	Impressions int    `toml:"impressions"` // 0 means 1
	FirstTouch  int64  `toml:"first_touch"`
	Severity    string `toml:"severity"` // easy (also if empty), normal, hard

	// Of a fingerprint module at a serial port.
	Baud     int   `toml:"baud"`     // 0 finds it
	Password int64 `toml:"password"` // 32 bits
	// PasswordFile has the password instead, so that it stands in no file that others read: one number, mode 0600.
	PasswordFile string `toml:"password_file"`
	Light        bool   `toml:"light"` // switch the light under the glass on

	// Of cameras: Path is a name in /dev/v4l/by-path, which pins the place, or /dev/videoN, which does not. USB ("046d:085e"),
	// Serial and Card pin the device; what is empty is not looked at.
	Format  string `toml:"format"` // yuyv, nv12, grey, mjpeg, rgb24; empty takes what the camera has
	USB     string `toml:"usb"`
	Serial  string `toml:"serial"`
	Card    string `toml:"card"`
	Profile string `toml:"profile"` // file of control values, set at every start of the camera
	// Infrared names the camera beside this one that sees infra-red: a frame of this one counts only together with one of that,
	// captured at most InfraredWithin apart; 0 means half a frame's time. That camera decides nothing by itself.
	Infrared       string   `toml:"infrared"`
	InfraredWithin Duration `toml:"infrared_within"`
}

// Bus shares the frames of the sensors with other processes of this machine, in shared memory that they can only read. An
// empty socket switches it off.
type Bus struct {
	Socket   string   `toml:"socket"`
	Readers  []string `toml:"readers"`   // "user:NAME", "group:NAME", or a number; nobody else, root neither
	Slots    int      `toml:"slots"`     // frames a sensor's ring holds
	FrameMiB int      `toml:"frame_mib"` // of the largest frame
}

// Values of Sensor.Driver.
const (
	DriverReplay = "replay" // recordings
	DriverSynth  = "synth"  // generated fingerprints of nobody
	DriverUART   = "uart"   // a fingerprint module of the ZFM and R30x family at a serial port
	DriverV4L2   = "v4l2"   // cameras
	DriverFprint = "fprint" // the reader of fprintd: a second factor, without pictures
)

// CameraFormats are the values of Sensor.Format: the formats of package sensors in their order, by the kernel's names.
var CameraFormats = []string{"grey", "rgb24", "nv12", "yuyv", "mjpeg"}

// Severities are the values of Sensor.Severity, in the order of sensors/synth.
var Severities = []string{"easy", "normal", "hard"}

// Duration is a time.Duration written as "1.5s".
type Duration time.Duration

// UnmarshalText reads "300ms", "2m".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 300ms, 2s or 5m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		Version:  Version,
		StateDir: "/var/lib/vigil",
		TPM:      TPM{PCRs: []int{7}},
		Runtime:  Runtime{Threads: 2, Kernels: KernelsAuto},
		Policy: Policy{
			EnrollQuality: 0.25, ProbeQuality: 0.05, Liveness: LivenessOff, EnrollSamples: 3, ConfirmFrames: 2, UnknownFrames: 5,
			EventHold: Duration(2 * time.Second), MaxFailures: 5, FailureWindow: Duration(time.Minute),
			Lockout: Duration(5 * time.Minute), AuditUnknown: true, FrameDeadline: Duration(2 * time.Second),
			EnrollTimeout: Duration(30 * time.Second), APIQueue: 16, APIDeadline: Duration(2 * time.Second), SecondTimeout: Duration(15 * time.Second),
			Finger: FingerPolicy{EnrollQuality: 0.3, ProbeQuality: 0.05},
		},
		API:   API{Others: ScopeOperator, RatePerSecond: 500, Burst: 1000},
		Fleet: Fleet{Tenant: "default"},
		Bus:   Bus{Slots: 8, FrameMiB: 8},
		Log:   Log{Level: "info", Format: "text"},
	}
}

// Load reads, checks and completes the file.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w (write one, or name another with --config)", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration %s: %w", path, err)
	}
	return Parse(path, data)
}

// Parse is Load for bytes; name is used in errors. Errors of the content are *Error or several joined, in the order of the
// file.
func Parse(name string, data []byte) (Config, error) {
	if len(data) > MaxBytes {
		return Config{}, &Error{File: name, Line: 1, Err: fmt.Errorf("over %d bytes", MaxBytes)}
	}
	c := Default()
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	decoded := d.Decode(&c)
	keys, err := indexOf(data)
	if err != nil || decoded != nil && !errors.As(decoded, new(*toml.StrictMissingError)) {
		return Config{}, locate(name, errors.Join(decoded, err))
	}
	v := validator{file: name, keys: keys}
	if v.version(c.Version); len(v.errs) == 0 && decoded != nil { // a file of another version may well have other keys
		return Config{}, locate(name, decoded)
	}
	v.check(&c)
	if len(v.errs) > 0 {
		return Config{}, v.joined()
	}
	return c, nil
}
