package main

import (
	"context"
	"fmt"
	"time"

	"vigil/lab/result"
	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// The cameras of vivid: one for each format, so that all can stream at once; those of the multi-planar interface begin at 4.
// The last is an HDMI input, whose picture can change by itself. All have capture nodes only.
const (
	vividParameters = "n_devs=9 node_types=0x1,0x1,0x1,0x1,0x1,0x1,0x1,0x1,0x1 multiplanar=1,1,1,1,2,2,2,2,1 " +
		"num_inputs=1,1,1,1,1,1,1,1,1 input_types=0,0,0,0,0,0,0,0,3"
	vividPlace = "platform-vivid.0-video-index0"
)

// vivid pins a camera. All are at the same place, so their names tell them apart.
func vivid(number int) v4l2.Pin {
	return v4l2.Pin{Place: vividPlace, Card: fmt.Sprintf("vivid-%03d-vid-cap", number)}
}

var (
	single = vivid(0)
	multi  = vivid(4)
	hdmi   = vivid(8)
)

// vividRate is what the cameras are asked for, in frames per second: an emulated machine is slower than the clock, so it
// is low enough that the driver itself keeps up, by and large, with all of them.
const vividRate = 15

func cameraCases(o *order) []testCase {
	var all []testCase
	add := func(name string, limit time.Duration, run func(*order) (string, error)) {
		all = append(all, testCase{result.Camera, "camera", name, false, limit, run})
	}
	for i, s := range []struct {
		name, code string
		f          sensors.Format
	}{
		{"YUYV", "YUYV", sensors.YUYV}, {"NV12", "NV12", sensors.NV12}, {"GREY", "GREY", sensors.Gray8}, {"RGB24", "RGB3", sensors.RGB24},
		{"YUYV mplane", "YUYV", sensors.YUYV}, {"NV12 mplane", "NV12", sensors.NV12}, {"NM12 mplane", "NM12", sensors.NV12},
		{"GREY mplane", "GREY", sensors.Gray8},
	} {
		add("stream "+s.name, o.each+2*time.Minute, func(o *order) (string, error) { return streamVivid(o, vivid(i), s.f, s.code) })
		all[i].beside = true
	}
	add("delay of one stage each", time.Minute, delays)
	add("newest frame, slow consumer", time.Minute, newestFrame)
	add("no copy, no allocation", time.Minute, noCopy)
	add("dmabuf export", time.Minute, dmabuf)
	add("pair, matched time stamps", time.Minute, paired)
	add("held frames", time.Minute, heldFrames)
	add("frames left out by the driver", time.Minute, leftOut)
	add("frames lost by us", time.Minute, lostByUs)
	add("sequence number wraps", time.Minute, sequenceWraps)
	add("controls", time.Minute, controlsKept)
	add("fatal stream error (EIO)", 2*time.Minute, fatalError)
	add("the driver refuses once (EINVAL)", time.Minute, refusedOnce)
	add("claimed by another (EBUSY)", time.Minute, claimed)
	add("another meddles (EBUSY)", time.Minute, meddled)
	add("format change", time.Minute, formatChange)
	add("format not offered", time.Minute, unsuited)
	add("fake and swapped camera", time.Minute, impostors)
	add("replug vivid in mid-stream", time.Duration(o.cycles)*15*time.Second+time.Minute, replugVivid)
	return all
}

func vividOptions(pin v4l2.Pin, f sensors.Format) v4l2.Options {
	return v4l2.Options{
		Name: "cam", Pin: pin, Format: f, Width: 640, Height: 360, Rate: vividRate, Buffers: 8, Timeout: 10 * time.Second,
	}
}

func openVivid(pin v4l2.Pin, f sensors.Format) (*v4l2.Source, error) {
	return v4l2.Open(vividOptions(pin, f))
}

// next is Next with a limit; a StateError is told, not swallowed.
func next(s sensors.Source, limit time.Duration) (*sensors.Frame, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.Next(ctx)
}

// skim takes some frames and gives them back.
func skim(s sensors.Source, frames int) error {
	for range frames {
		f, err := next(s, 20*time.Second)
		if err != nil {
			return err
		}
		f.Release()
	}
	return nil
}

func find(p v4l2.Pin) (v4l2.Identity, error) {
	all, err := v4l2.List()
	for _, id := range all {
		if id.Place == p.Place && id.Card == p.Card {
			return id, nil
		}
	}
	return v4l2.Identity{}, fmt.Errorf("nothing at %s: %+v %v", p.Place, all, err)
}
