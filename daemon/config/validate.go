package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// validator collects what is wrong, so that a user mends it all at once.
type validator struct {
	file string
	keys index
	errs []*Error
}

// require records an error for key unless ok.
func (v *validator) require(ok bool, key, format string, args ...any) {
	if !ok {
		v.errs = append(v.errs, &Error{File: v.file, Line: v.keys.line(key), Key: key, Err: fmt.Errorf(format, args...)})
	}
}

// joined is all errors in the order of the file.
func (v *validator) joined() error {
	slices.SortStableFunc(v.errs, func(a, b *Error) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key)) })
	list := make([]error, len(v.errs))
	for i, e := range v.errs {
		list[i] = e
	}
	return errors.Join(list...)
}

// version checks what everything else depends on.
func (v *validator) version(version int) {
	if _, ok := v.keys["version"]; !ok {
		v.require(false, "version", "is missing: begin the file with version = %d", Version)
		return
	}
	v.require(version == Version, "version", "%d cannot be read: this program reads version %d", version, Version)
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (v *validator) check(c *Config) {
	v.require(filepath.IsAbs(c.StateDir), "state_dir", "%q must be an absolute path", c.StateDir)
	v.require(c.TPM.Address == "" || strings.HasPrefix(c.TPM.Address, "unix:/") || filepath.IsAbs(c.TPM.Address),
		"tpm.address", "%q: \"/dev/tpmrm0\" or \"unix:/path/to/socket\"", c.TPM.Address)
	v.require(len(c.TPM.PCRs) > 0, "tpm.pcrs", "at least one register")
	for i, r := range c.TPM.PCRs {
		v.require(r >= 0 && r < 24, "tpm.pcrs", "register %d: 0 to 23", r)
		v.require(!slices.Contains(c.TPM.PCRs[:i], r), "tpm.pcrs", "register %d is named twice", r)
	}
	v.require(c.Runtime.Kernels == KernelsAuto || c.Runtime.Kernels == KernelsOff, "runtime.kernels", "%q: %q or %q", c.Runtime.Kernels, KernelsAuto, KernelsOff)
	v.require(c.Runtime.Threads >= 1 && c.Runtime.Threads <= 64, "runtime.threads", "%d: 1 to 64", c.Runtime.Threads)
	d, p := &c.Runtime.Device, &c.Runtime.Provider
	v.require(d.ID >= 0 && d.ID < 64, "runtime.device.id", "%d: 0 to 63", d.ID)
	v.require(d.MemoryMiB >= 0, "runtime.device.memory_mib", "%d: 0 (no limit) or more", d.MemoryMiB)
	v.require(d.WorkspaceMiB >= 0, "runtime.device.workspace_mib", "%d: 0 (the provider's) or more", d.WorkspaceMiB)
	v.require(d.DLACore >= 0 && d.DLACore <= 8, "runtime.device.dla_core", "%d: 0 (none) to 8", d.DLACore)
	v.require(d.BuilderLevel >= 0 && d.BuilderLevel <= 5, "runtime.device.builder_level", "%d: 0 (the provider's) to 5", d.BuilderLevel)
	v.require(d.EngineCache == "" || filepath.IsAbs(d.EngineCache), "runtime.device.engine_cache", "%q: an absolute path", d.EngineCache)
	v.require(d.TimingCache == "" || filepath.IsAbs(d.TimingCache), "runtime.device.timing_cache", "%q: an absolute path", d.TimingCache)
	v.require(p.Library == "" || filepath.IsAbs(p.Library), "runtime.provider.library", "%q: an absolute path", p.Library)
	v.require((p.Library == "") == (p.Name == ""), "runtime.provider", "a name and a library, or neither")
	v.require(c.Runtime.Workers >= 0 && c.Runtime.Workers <= 64, "runtime.workers", "%d: 0 (as many as the cores allow) to 64", c.Runtime.Workers)
	v.policy(&c.Policy)
	v.fleet(&c.Fleet)
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.api(&c.API)
	v.bus(&c.Bus)
	v.sensors(c.Sensors)
	v.second(&c.Policy, c.Sensors)
	v.pairs(c.Sensors)
	v.actuators(c.Actuators, c.Sensors)
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	for _, a := range allowed {
		if a == value {
			return
		}
	}
	v.require(false, key, "%q: one of %s", value, strings.Join(allowed, ", "))
}

func (v *validator) policy(p *Policy) {
	for key, t := range map[string]float64{
		"verify_threshold": p.VerifyThreshold, "identify_threshold": p.IdentifyThreshold, "duplicate_threshold": p.DuplicateThreshold,
		"liveness_threshold": p.LivenessThreshold,
	} {
		v.require(t >= 0 && t < 1, "policy."+key, "%v: from 0 (the bundle's own) to below 1", t)
	}
	v.oneOf("policy.liveness", p.Liveness, LivenessOff, LivenessRequired)
	v.require(p.EnrollQuality >= 0 && p.EnrollQuality <= 1, "policy.enroll_quality", "%v: 0 to 1", p.EnrollQuality)
	v.require(p.ProbeQuality >= 0 && p.ProbeQuality <= 1, "policy.probe_quality", "%v: 0 to 1", p.ProbeQuality)
	for key, n := range map[string]int{
		"enroll_samples": p.EnrollSamples, "confirm_frames": p.ConfirmFrames, "unknown_frames": p.UnknownFrames,
	} {
		v.require(n >= 1 && n <= 16, "policy."+key, "%d: 1 to 16", n)
	}
	for key, n := range map[string]float64{
		"verify_threshold": p.Finger.VerifyThreshold, "identify_threshold": p.Finger.IdentifyThreshold,
		"duplicate_threshold": p.Finger.DuplicateThreshold,
	} {
		v.require(n >= 0 && n < 1, "policy.finger."+key, "%v: from 0 (the bundle's own) to below 1", n)
	}
	for key, n := range map[string]float64{"enroll_quality": p.Finger.EnrollQuality, "probe_quality": p.Finger.ProbeQuality} {
		v.require(n >= 0 && n <= 1, "policy.finger."+key, "%v: 0 to 1", n)
	}
	v.require(p.APIQueue >= 1 && p.APIQueue <= 1024, "policy.api_queue", "%d: 1 to 1024", p.APIQueue)
	v.require(p.MaxFailures >= 0 && p.MaxFailures <= 100, "policy.max_failures", "%d: 0 (never) to 100", p.MaxFailures)
	for key, d := range map[string]Duration{
		"event_hold": p.EventHold, "failure_window": p.FailureWindow, "lockout": p.Lockout,
		"frame_deadline": p.FrameDeadline, "enroll_timeout": p.EnrollTimeout, "api_deadline": p.APIDeadline, "second_timeout": p.SecondTimeout,
	} {
		if at, ok := v.keys["policy."+key]; ok && at.kind != unstable.String {
			v.require(false, "policy."+key, "a number has no unit: write it as \"300ms\", \"2s\" or \"5m\"")
			continue
		}
		v.require(d >= Duration(10*time.Millisecond) && d <= Duration(24*time.Hour), "policy."+key, "%v: 10ms to 24h", time.Duration(d))
	}
}

func (v *validator) bus(b *Bus) {
	v.require(b.Socket == "" || filepath.IsAbs(b.Socket) && len(b.Socket) < 104, "bus.socket", "%q: an absolute path of at most 103 bytes", b.Socket)
	v.require((b.Socket == "") == (len(b.Readers) == 0), "bus.readers", "a socket and who may read from it, or neither")
	v.require(len(b.Readers) <= maxPeers, "bus.readers", "%d of them, at most %d", len(b.Readers), maxPeers)
	for i, who := range b.Readers {
		kind, name, _ := strings.Cut(who, ":")
		v.require((kind == "user" || kind == "group") && name != "", fmt.Sprintf("bus.readers[%d]", i), "%q: \"user:NAME\" or \"group:NAME\"", who)
	}
	v.require(b.Slots >= 4 && b.Slots <= 64, "bus.slots", "%d: 4 to 64", b.Slots)
	v.require(b.FrameMiB >= 1 && b.FrameMiB <= 256, "bus.frame_mib", "%d: 1 to 256", b.FrameMiB)
}

// maxPeers bounds the entries of api.peers and api.tcp.clients.
const maxPeers = 64

func (v *validator) api(a *API) {
	v.require(a.Socket == "" || filepath.IsAbs(a.Socket), "api.socket", "%q must be an absolute path", a.Socket)
	v.require(len(a.Socket) < 104, "api.socket", "a socket's path holds at most 103 bytes")
	v.oneOf("api.others", a.Others, ScopeNone, ScopeViewer, ScopeEnroller, ScopeOperator)
	v.require(a.RatePerSecond == 0 || a.RatePerSecond >= 0.01 && a.RatePerSecond <= 1e6, "api.rate_per_second",
		"%v: 0.01 to 1000000, or 0 for no limit", a.RatePerSecond)
	v.require(a.Burst >= 1 && a.Burst <= 1e6, "api.burst", "%d: 1 to 1000000", a.Burst)
	v.require(len(a.Peers) <= maxPeers, "api.peers", "%d of them, at most %d", len(a.Peers), maxPeers)
	for i, p := range a.Peers {
		key := fmt.Sprintf("api.peers[%d]", i)
		kind, name, _ := strings.Cut(p.Who, ":")
		v.require((kind == "user" || kind == "group") && name != "", key+".who", "%q: \"user:NAME\" or \"group:NAME\"", p.Who)
		v.oneOf(key+".scope", p.Scope, ScopeViewer, ScopeEnroller, ScopeOperator)
	}
	v.tcp(&a.TCP)
}

func (v *validator) tcp(t *TCP) {
	v.require(len(t.Clients) <= maxPeers, "api.tcp.clients", "%d of them, at most %d", len(t.Clients), maxPeers)
	for i, c := range t.Clients {
		key := fmt.Sprintf("api.tcp.clients[%d]", i)
		v.require(c.Name != "", key+".name", "is empty: a URI, DNS or common name of the client's certificate")
		v.oneOf(key+".scope", c.Scope, ScopeViewer, ScopeEnroller, ScopeOperator)
	}
	if t.Address == "" {
		v.require(t.Certificate+t.Key+t.ClientCA == "" && len(t.Clients) == 0, "api.tcp.address",
			"is empty, but other keys of api.tcp are set: name host:port, or leave them all out")
		return
	}
	v.require(isHostPort(t.Address), "api.tcp.address", "%q: host:port, such as 0.0.0.0:8443", t.Address)
	for key, value := range map[string]string{"certificate": t.Certificate, "client_ca": t.ClientCA} {
		v.require(filepath.IsAbs(value), "api.tcp."+key, "%q: an absolute path is needed when api.tcp.address is set", value)
	}
	v.require(t.Key == KeyInTPM || filepath.IsAbs(t.Key), "api.tcp.key", "%q: \"tpm\" or an absolute path", t.Key)
}

func (v *validator) fleet(f *Fleet) {
	v.require(namePattern.MatchString(f.Tenant), "fleet.tenant", "%q: 1 to 63 of a-z, 0-9 and dash", f.Tenant)
	if f.Broker == "" {
		return
	}
	v.require(isHostPort(f.Broker), "fleet.broker", "%q: host:port, such as broker.example:8883", f.Broker)
	for key, value := range map[string]string{
		"ca": f.CA, "certificate": f.Certificate, "management_key": f.ManagementKey,
	} {
		v.require(filepath.IsAbs(value), "fleet."+key, "%q: an absolute path is needed when fleet.broker is set", value)
	}
	v.require(len(f.CommandKeys) > 0, "fleet.command_keys", "at least one key file is needed when fleet.broker is set")
	for _, path := range f.CommandKeys {
		v.require(filepath.IsAbs(path), "fleet.command_keys", "%q: an absolute path is needed", path)
	}
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && n > 0 && host != "" && !strings.ContainsAny(host, "/ ")
}

// maxSensors bounds the sensors of one device, maxSide a picture's width and height in pixels.
const (
	maxSensors = 16
	maxSide    = 65535
)

func (v *validator) sensors(list []Sensor) {
	v.require(len(list) <= maxSensors, "sensors", "%d of them, at most %d", len(list), maxSensors)
	seen := map[string]bool{}
	for i, s := range list {
		key := fmt.Sprintf("sensors[%d]", i)
		v.require(namePattern.MatchString(s.Name), key+".name", "%q: 1 to 63 of a-z, 0-9 and dash", s.Name)
		v.require(!seen[s.Name], key+".name", "%q is used twice", s.Name)
		seen[s.Name] = true
		v.oneOf(key+".driver", s.Driver, DriverReplay, DriverSynth, DriverUART, DriverV4L2, DriverFprint)
		v.oneOf(key+".modality", s.Modality, "", "face", "finger")
		v.require(s.DPI == 0 || s.DPI >= 250 && s.DPI <= 2000, key+".dpi", "%v: 250 to 2000 pixels per inch, or 0", s.DPI)
		v.require(s.Driver == DriverSynth || s.Driver == DriverFprint && s.Path == "" || filepath.IsAbs(s.Path), key+".path", "%q must be an absolute path", s.Path)
		if s.Driver == DriverSynth {
			v.synth(key, &s)
		}
		v.uart(key, &s)
		v.camera(key, &s)
		v.fprint(key, &s)
		v.require(s.Rate >= 0 && s.Rate <= 1000, key+".rate", "%v: 0 to 1000 frames per second", s.Rate)
		v.require(s.Speed >= 0 && s.Speed <= 1000, key+".speed", "%v: 0 to 1000", s.Speed)
		v.require(s.Repeat >= 0 && s.Repeat <= 1000, key+".repeat", "%d: 0 to 1000", s.Repeat)
		v.require(s.Width >= 0 && s.Width <= maxSide, key+".width", "%d: 0 to %d pixels", s.Width, maxSide)
		v.require(s.Height >= 0 && s.Height <= maxSide, key+".height", "%d: 0 to %d pixels", s.Height, maxSide)
	}
}

// synth checks a reader of generated fingers.
func (v *validator) synth(key string, s *Sensor) {
	v.require(s.Modality == "finger", key+".modality", "%q: the driver synth makes fingers: \"finger\"", s.Modality)
	v.require(s.Path == "", key+".path", "the driver synth reads no file: leave it out")
	v.oneOf(key+".severity", s.Severity, append([]string{""}, Severities...)...)
	v.require(s.Seed >= 0 && s.FirstTouch >= 0, key+".seed", "seed and first_touch are 0 or more")
	v.require(s.Fingers >= 0 && s.Fingers <= 1<<30, key+".fingers", "%d: 0 (without end) to %d", s.Fingers, 1<<30)
	v.require(s.Impressions >= 0 && s.Impressions <= 1000, key+".impressions", "%d: 0 to 1000", s.Impressions)
	v.require(s.Width == 0 && s.Height == 0 || min(s.Width, s.Height) >= 64 && max(s.Width, s.Height) <= 2048, key+".width",
		"%d x %d: width and height are 64 to 2048 pixels, or both left out", s.Width, s.Height)
	v.require(s.DPI == 0 || s.DPI <= 1000, key+".dpi", "%v: the driver synth makes 250 to 1000", s.DPI)
}

// usbPattern is vendor and product of a USB device.
var usbPattern = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)

// camera checks the keys of cameras, which others must leave out.
func (v *validator) camera(key string, s *Sensor) {
	if s.Driver != DriverV4L2 {
		v.require(s.Format+s.USB+s.Serial+s.Card+s.Profile+s.Infrared == "" && s.InfraredWithin == 0, key+".driver",
			"%q: format, usb, serial, card, profile and infrared are keys of the driver %q", s.Driver, DriverV4L2)
		return
	}
	v.require(strings.HasPrefix(s.Path, "/dev/"), key+".path", "%q: a name in /dev/v4l/by-path, or /dev/videoN", s.Path)
	v.oneOf(key+".format", s.Format, append([]string{""}, CameraFormats...)...)
	v.require(s.USB == "" || usbPattern.MatchString(s.USB), key+".usb", "%q: vendor and product such as \"046d:085e\"", s.USB)
	v.require(s.Profile == "" || filepath.IsAbs(s.Profile), key+".profile", "%q must be an absolute path", s.Profile)
	v.require((s.Width == 0) == (s.Height == 0), key+".width", "width and height are both given, or both left out")
	v.require(!s.Step && !s.Loop && s.Repeat == 0 && s.Speed == 0, key+".driver", "step, loop, repeat and speed are keys of recordings: leave them out")
}
