//go:build !appliance

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigil/infer/builtin"
	"vigil/infer/face"
	"vigil/infer/finger"
	"vigil/infer/infertest"
	"vigil/secure/securetest"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// piece is how many consecutive bytes of a secret count as a leak.
const piece = 16

// haystack is what somebody could have collected: every file of the device, the TPM's transcript, the broker's messages.
type haystack struct {
	names []string
	blobs [][]byte
}

func (h *haystack) add(name string, blob []byte) {
	h.names = append(h.names, name)
	h.blobs = append(h.blobs, blob)
}

// needles finds many secrets at once: windows of piece bytes, taken every piece bytes of each secret, so that any leak of
// 2*piece-1 consecutive bytes holds one.
type needles struct {
	windows map[[piece]byte]string
	words   map[string]string // shorter secrets, searched as they are
	control []byte            // one of the secrets, to see that the search finds anything
}

// addEncoded takes a secret in the forms in which a message or a record could hold it.
func (n *needles) addEncoded(what string, secret []byte) {
	n.add(what, secret)
	n.add(what, []byte(hex.EncodeToString(secret)))
	for skip := range 3 {
		n.add(what, []byte(base64.RawStdEncoding.EncodeToString(secret[skip:])))
	}
}

// add takes a secret as it is.
func (n *needles) add(what string, secret []byte) {
	for at := 0; at+piece <= len(secret); at += piece {
		if w := [piece]byte(secret[at:]); varied(w[:]) {
			n.windows[w] = what
		}
	}
}

// varied leaves out runs that any file may hold.
func varied(w []byte) bool {
	seen := map[byte]bool{}
	for _, b := range w {
		seen[b] = true
	}
	return len(seen) > piece/2
}

func (n *needles) search(h *haystack) []string {
	var found []string
	for i, b := range h.blobs {
		for at := 0; at+piece <= len(b); at++ {
			if what, hit := n.windows[[piece]byte(b[at:])]; hit {
				found = append(found, what+" in "+h.names[i])
				break
			}
		}
		for word, what := range n.words {
			if bytes.Contains(b, []byte(word)) {
				found = append(found, what+" in "+h.names[i])
			}
		}
	}
	return found
}

// TestTheDemoLeaksNothing runs the demo and then looks through everything a thief, a bus probe and a broker could have
// seen for names, pictures, templates, weights and the root secret.
func TestTheDemoLeaksNothing(t *testing.T) {
	infertest.Data(t, "faces", "lfw")
	t.Setenv("VIGIL_DATA", infertest.Data(t))
	t.Setenv("VIGIL_ORT_LIB", infertest.Library(t))
	var out bytes.Buffer
	d := &demo{app: &app{env: Env{Stdout: &out, Stderr: io.Discard}}, limit: 10 * time.Minute, dir: filepath.Join(t.TempDir(), "demo")}
	if err := d.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "RIGHT") {
		t.Errorf("the demo does not say that it is right:\n%s", out.String())
	}

	h := &haystack{}
	collectFiles(t, h, d.stateDir())
	disk := len(h.blobs)
	for _, c := range d.broker.Captured() {
		h.add("MQTT "+c.Topic, append([]byte(c.Topic+" "), c.Payload...))
	}
	log, err := os.Open(d.tpmLog())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	traffic, err := securetest.ParseTranscript(log)
	if err != nil {
		t.Fatal(err)
	}
	views, encrypted, err := securetest.Eavesdrop(traffic) // includes what opens with the empty session key
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		h.add("TPM bus: "+v.Where, v.Bytes)
	}

	n := secretsOf(t, d)
	control := &haystack{}
	control.add("control", append([]byte("...."), n.control...))
	if len(n.search(control)) == 0 {
		t.Fatal("the search does not even find a template that is there")
	}
	for _, leak := range n.search(h) {
		t.Errorf("leak: %s", leak)
	}
	if hits, tried, err := securetest.CheckRoot(traffic, d.stateDir()); err != nil || len(hits) > 0 || tried == 0 {
		t.Errorf("root secret on the TPM bus: %v (tried %d, %v)", hits, tried, err)
	}
	var small [][]byte
	for _, b := range h.blobs[:disk] {
		if len(b) < 1<<20 { // the sealed weights are one envelope each
			small = append(small, b)
		}
	}
	hits, tried, err := securetest.FindRoot(d.stateDir(), small...)
	if err != nil || len(hits) > 0 {
		t.Errorf("root secret on the disk: %v (%v)", hits, err)
	}
	t.Logf("%d files, %d messages, %d TPM commands with %d encrypted parameters; %d windows of secrets and %d names searched; %d candidates for the root secret tried",
		disk, len(d.broker.Captured()), len(traffic), encrypted, len(n.windows), len(n.words), tried)
	if len(d.broker.Captured()) < 50 || encrypted == 0 || disk < 5 {
		t.Error("there was hardly anything to search: the proof is hollow")
	}
}

func collectFiles(t *testing.T, h *haystack, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		h.add("path", []byte(path))
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		h.add(path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// secretsOf gathers what must not be found: the names, the pictures and templates of everybody who was enrolled or shown,
// and the weights.
func secretsOf(t *testing.T, d *demo) *needles {
	t.Helper()
	n := &needles{windows: map[[piece]byte]string{}, words: map[string]string{}}
	p := infertest.Pipeline(t)
	r, pool := p.NewResult(), sensors.NewPool(1)
	for _, who := range append(append([]*person{}, d.cast.people...), d.cast.strangers...) {
		if who.Enrolled {
			n.words[who.Name] = "the name of " + who.Name
			n.words[strings.ReplaceAll(who.Name, " ", "_")] = "the name of " + who.Name
			n.words[base64.StdEncoding.EncodeToString([]byte(who.Name))[:8]] = "the encoded name of " + who.Name
		}
		for _, file := range append(append([]string{}, who.enroll...), who.probes...) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n.add("a picture of "+who.Name, data[len(data)/4:]) // behind the tables that all JPEG files share
			f, err := picture.Decode(t.Context(), pool, data)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Process(t.Context(), f, r); err != nil {
				t.Fatal(err)
			}
			f.Release()
			addTemplates(n, who.Name, r.Faces)
		}
	}
	addFingers(t, n, d)
	for _, name := range []string{"yunet_s_320_320.onnx", "mobilefacenet_foamliu.onnx"} {
		data, err := os.ReadFile(infertest.Data(t, "models", name))
		if err != nil {
			t.Fatal(err)
		}
		n.add("weights of "+name, data)
	}
	return n
}

// addFingers adds names, pictures and templates of the generated fingers, as they were enrolled.
func addFingers(t *testing.T, n *needles, d *demo) {
	t.Helper()
	m, err := builtin.Finger()
	if err != nil {
		t.Fatal(err)
	}
	p, err := finger.New(t.Context(), infertest.Runtime(t), m)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, pool := p.NewResult(), sensors.NewPool(1)
	for _, who := range d.cast.fingers {
		n.words[who.Name] = "the name of " + who.Name
		pictures, err := touches(who.seed, enrollTouches)
		if err != nil {
			t.Fatal(err)
		}
		for _, pic := range pictures {
			n.add("a picture of "+who.Name, pic.Data[len(pic.Data)/4:])
			f, err := picture.Decode(t.Context(), pool, pic.Data)
			if err != nil {
				t.Fatal(err)
			}
			err = p.Process(t.Context(), f, 0, r)
			f.Release()
			if err != nil || r.Minutiae == 0 {
				t.Fatalf("%s: %v, %d minutiae", who.Name, err, r.Minutiae)
			}
			b := make([]byte, len(r.Values))
			for i, v := range r.Values {
				b[i] = byte(v)
			}
			n.addEncoded("a template of "+who.Name, b)
		}
	}
}

// TestTheDemoNeedsNoData: without pictures from outside it shows fingers.
func TestTheDemoNeedsNoData(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector sees these steps in TestTheDemoLeaksNothing; make test runs this one without it")
	}
	t.Setenv("VIGIL_ORT_LIB", infertest.Library(t))
	t.Setenv("VIGIL_DATA", t.TempDir())
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip(securetest.ErrNoSWTPM)
	}
	var out, progress bytes.Buffer
	d := &demo{app: &app{env: Env{Stdout: &out, Stderr: &progress}}, limit: 10 * time.Minute, dir: filepath.Join(t.TempDir(), "demo")}
	if err := d.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"RIGHT", "finger 12 (generated)", "none let in"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q:\n%s", want, out.String())
		}
	}
	if !strings.Contains(progress.String(), "no faces in this demo") {
		t.Errorf("the demo does not say why it shows no faces:\n%s", progress.String())
	}
}

func addTemplates(n *needles, name string, faces []face.Face) {
	for _, f := range faces {
		b := make([]byte, len(f.Values))
		for i, v := range f.Values {
			b[i] = byte(v)
		}
		n.addEncoded("a template of "+name, b)
		n.control = b
	}
}
