package main

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"vigil/daemon/config"
)

// uncommented is the example with every key that is commented out set to what stands there.
func uncommented() string {
	key := regexp.MustCompile(`(?m)^# ((?:[a-z0-9_]+ = |\[\[).*)$`)
	return key.ReplaceAllString(exampleConfig, "$1")
}

func TestTheExampleIsTheDefault(t *testing.T) {
	got, err := config.Parse("example.toml", []byte(exampleConfig))
	if err != nil {
		t.Fatal(err)
	}
	if want := config.Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("the example sets something:\n%+v\ninstead of\n%+v", got, want)
	}
}

func TestTheExampleShowsTheDefaults(t *testing.T) {
	text := uncommented()
	text = text[:strings.Index(text, "[[api.tcp.clients]]")] + text[strings.Index(text, "[fleet]"):] // clients of no address
	got, err := config.Parse("example.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sensors) != 5 || got.Sensors[0].Name != "door" || !got.Sensors[0].Loop || got.Sensors[1].Driver != config.DriverV4L2 || got.Sensors[2].Driver != config.DriverSynth || got.Sensors[3].Driver != config.DriverFprint || got.Sensors[4].Driver != config.DriverUART {
		t.Errorf("sensors %+v", got.Sensors)
	}
	if len(got.API.Peers) != 1 || got.API.Peers[0].Scope != config.ScopeViewer {
		t.Errorf("peers %+v", got.API.Peers)
	}
	if len(got.Actuators) != 3 || got.Actuators[0].Driver != config.ActuatorRelay || got.Actuators[2].Driver != config.ActuatorOSDP {
		t.Errorf("actuators %+v", got.Actuators)
	}
	got.Sensors, got.API.Peers, got.Actuators = nil, nil, nil
	want := config.Default()
	want.Fleet.CommandKeys, want.Bus.Readers, want.Runtime.Provider.Options = []string{}, []string{}, map[string]string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example shows other defaults:\n%+v\ninstead of\n%+v", got, want)
	}
}

func TestTheExampleNamesEveryKey(t *testing.T) {
	text := uncommented()
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := f.Tag.Get("toml")
			if !strings.Contains(text, "\n"+name+" = ") && !strings.Contains(text, "["+name+"]") && !strings.Contains(text, "."+name+"]") {
				t.Errorf("the example does not name %s (%s)", name, typ)
			}
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[config.Config]())
}
