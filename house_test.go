// Package house_test holds the rules of the house: who may import whom, what is banned where, and that every package
// explains itself. The rules are data; a rule about something that no longer exists fails.
package house_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "vigil/"

// rooms says which rooms the packages of a room may import beside their own. A room is a folder of the root.
var rooms = map[string][]string{
	"kernels":   {},
	"sensors":   {},
	"actuators": {},
	"secure":    {},
	"infer":     {"kernels", "sensors"},
	"store":     {"secure", "kernels"},
	"fleet":     {"secure"}, // the store it needs is declared as interfaces in fleet itself
	"daemon":    {"kernels", "sensors", "actuators", "secure", "infer", "store", "fleet"},
	"bench":     {"kernels", "sensors", "actuators", "secure", "infer", "store", "fleet", "daemon"}, // anything: nobody imports it
	"lab":       {"kernels", "sensors", "actuators", "secure", "infer", "store", "fleet", "daemon"}, // the same
}

// ban forbids an import outside some folders.
type ban struct {
	path   string   // imported package
	except []string // packages, or folders with a trailing slash, that may
	reason string
}

var bans = []ban{
	{"C", []string{"vigil/kernels/", "vigil/sensors/picture/turbo", "vigil/infer/ort", "vigil/infer/trt", "vigil/infer/cuda", "vigil/secure/mem"}, "C code is kept where its memory rules are known"},
	{"unsafe", []string{"vigil/actuators/gpio", "vigil/kernels/", "vigil/sensors/bus", "vigil/sensors/picture/turbo", "vigil/sensors/v4l2/", "vigil/lab/guest", "vigil/infer/ort", "vigil/infer/trt", "vigil/secure/mem", "vigil/infer/quant/onnx/pb"}, // pb: as protoc-gen-go writes it; bus: atomic words in shared memory; v4l2: ioctl takes addresses
		"pointer tricks are kept where their rules are known"},
	{"vigil/infer/trt/gen", []string{"vigil/infer/trt"}, "what speaks to TensorRT has one caller"},
	{"vigil/infer/quant/onnx/pb", []string{"vigil/infer/quant/onnx"}, "what the schema allows is checked in one place"},
	{"os/exec", []string{"vigil/bench/", "vigil/lab", "vigil/daemon", "vigil/infer/trt/trttest", "vigil/secure/securetest", "vigil/fleet/fleettest", "vigil/sensors/fprint/fprinttest"}, "the appliance starts no processes"},
	{"net/http/httptest", nil, "test helpers do not ship"},
	{"testing", []string{"vigil/store/storetest", "vigil/infer/infertest", "vigil/infer/infertest/fake", "vigil/infer/trt/trttest", "vigil/daemon/daemontest"}, "test code does not ship"},
	{"log", nil, "the log is structured: log/slog"},
	{"github.com/mochi-mqtt/server/v2", []string{"vigil/fleet/fleettest"}, "the broker of tests and the demo is no part of the device"},
	{"github.com/yalue/onnxruntime_go", []string{"vigil/infer/ort"}, "one adapter for the runtime"},
	{"github.com/google/go-tpm/tpm2", []string{"vigil/secure/tpm", "vigil/secure/securetest"}, "one adapter for the TPM"},
	{"go.etcd.io/bbolt", []string{"vigil/store"}, "one owner of the database"},
	{"github.com/eclipse/paho.mqtt.golang", []string{"vigil/fleet", "vigil/fleet/fleettest"}, "one owner of the link"},
	{"vigil/sensors/uart/uarttest", nil, "a played module is for tests"},
	{"vigil/sensors/fprint/fprinttest", nil, "a bus of its own is for tests"},
	{"vigil/sensors/v4l2/v4l2test", nil, "a played kernel is for tests"},
	{"vigil/actuators/osdp/osdptest", nil, "a played control panel is for tests"},
	{"gonum.org/v1/plot", []string{"vigil/infer/eval/report"}, "one place that draws"},
	{"vigil/secure/securetest", []string{"vigil/bench/", "vigil/daemon", "vigil/daemon/daemontest", "vigil/store/storetest"}, "a software TPM is for tests and the demo"},
	{"vigil/fleet/fleettest", []string{"vigil/daemon"}, "a throw-away authority is for tests and the demo"},
}

// shipped must not be among the dependencies of the binary that ships (build tag appliance).
var notShipped = []string{
	"testing", "net/http/httptest", "os/exec", "vigil/secure/securetest", "vigil/fleet/fleettest", "vigil/store/storetest",
	"vigil/infer/infertest", "vigil/infer/infertest/fake", "vigil/infer/trt/trttest", "vigil/daemon/daemontest", "github.com/mochi-mqtt/server/v2",
	"gonum.org/v1/plot",
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Imports    []string
	GoFiles    []string
	CgoFiles   []string
	Standard   bool
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Name,Imports,GoFiles,CgoFiles,Standard"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.Bytes())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// room is the folder of the root that a package of ours lies in.
func room(path string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(path, module), "/")
	return name
}

func ours(path string) bool { return strings.HasPrefix(path, module) }

func TestArrowsPointAsInTheTable(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t, "./...") {
		if p.ImportPath == strings.TrimSuffix(module, "/") {
			continue // this folder: only tests
		}
		from := room(p.ImportPath)
		allowed, known := rooms[from]
		if !known {
			t.Errorf("%s lies in no room of the table", p.ImportPath)
		}
		seen[from] = true
		for _, i := range p.Imports {
			if ours(i) && room(i) != from && !slices.Contains(allowed, room(i)) {
				t.Errorf("%s imports %s: %s may import only %v", p.ImportPath, i, from, allowed)
			}
			driver := room(i) == "sensors" && i != "vigil/sensors"
			if from == "infer" && driver && !strings.HasSuffix(p.ImportPath, "test") {
				t.Errorf("%s imports %s: infer knows frames only, not drivers", p.ImportPath, i)
			}
		}
	}
	for name := range rooms {
		if !seen[name] {
			t.Errorf("the table has room %q, but no package lies there", name)
		}
	}
}

// gpuTags are those of a build for machines with a GPU.
const gpuTags = "cuda,tensorrt"

func TestBans(t *testing.T) {
	all := append(list(t, "./..."), list(t, "-tags", gpuTags, "./...")...)
	known := map[string]bool{"C": true}
	for _, p := range append(list(t, "-deps", "./..."), list(t, "-deps", "-tags", gpuTags, "./infer/trt")...) {
		known[p.ImportPath] = true
	}
	for _, p := range list(t, "testing", "net/http/httptest") {
		known[p.ImportPath] = true
	}
	for _, b := range bans {
		if !known[b.path] {
			t.Errorf("the ban of %s is about a package that no longer exists: remove it", b.path)
		}
		for _, p := range all {
			if slices.Contains(p.Imports, b.path) && !b.allows(p.ImportPath) {
				t.Errorf("%s imports %s: %s", p.ImportPath, b.path, b.reason)
			}
		}
	}
}

func (b ban) allows(path string) bool {
	return slices.ContainsFunc(b.except, func(e string) bool {
		return path == e || strings.HasSuffix(e, "/") && strings.HasPrefix(path+"/", e)
	})
}

func TestTheShippedBinaryHoldsNoTestHelpers(t *testing.T) {
	for _, p := range list(t, "-deps", "-tags", "appliance", "./daemon") {
		if slices.Contains(notShipped, p.ImportPath) && !p.Standard {
			t.Errorf("the appliance contains %s", p.ImportPath)
		}
		if p.Standard || !ours(p.ImportPath) {
			continue // others may need what ours may not
		}
		for _, i := range p.Imports {
			if slices.Contains(notShipped, i) {
				t.Errorf("the appliance's %s imports %s", p.ImportPath, i)
			}
		}
	}
}

// TestTheApplianceWithAGPUStartsOnlyItself: engines are built in a child process, by the commands alone; everything else
// holds as for the appliance without.
func TestTheApplianceWithAGPUStartsOnlyItself(t *testing.T) {
	for _, p := range list(t, "-deps", "-tags", "appliance,"+gpuTags, "./daemon") {
		if slices.Contains(notShipped, p.ImportPath) && !p.Standard {
			t.Errorf("the appliance contains %s", p.ImportPath)
		}
		if p.Standard || !ours(p.ImportPath) {
			continue
		}
		for _, i := range p.Imports {
			if slices.Contains(notShipped, i) && !(i == "os/exec" && p.ImportPath == "vigil/daemon") {
				t.Errorf("the appliance's %s imports %s", p.ImportPath, i)
			}
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for _, p := range append(list(t, "./..."), list(t, "-tags", gpuTags, "./infer/...", "./daemon/...")...) {
		var with []string
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles) {
			ast, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.Doc != nil {
				with = append(with, f)
			}
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s has %d package comments %v, must have exactly one", p.ImportPath, len(with), with)
		}
	}
}
