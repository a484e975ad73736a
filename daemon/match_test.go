package main

import (
	"testing"

	"vigil/daemon/core"
)

func TestGuidanceInWords(t *testing.T) {
	parts := map[string]core.QualityComponent{"InterEyeDistance": {Value: 7, Measured: 17.58, Unit: "px"}, "Moisture": {Value: 20, Measured: 0.0712, Unit: "1"}}
	for want, a := range map[string]*core.Assessment{
		"": nil,
		"come_closer (InterEyeDistance 7 of 100, 17.6 px)": {Guidance: "come_closer", Worst: "InterEyeDistance", Components: parts},
		"dry_finger (Moisture 20 of 100, 0.0712)":          {Guidance: "dry_finger", Worst: "Moisture", Components: parts},
	} {
		if got := guidance(a); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := guidance(&core.Assessment{Components: parts}); got != "" {
		t.Errorf("a good picture: %q", got)
	}
}
