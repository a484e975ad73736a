package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// heldFrames keeps all frames that it can get, and looks whether the driver goes on and the held ones stay as they are.
func heldFrames(*order) (string, error) {
	if err := vividPattern(single); err != nil {
		return "", err
	}
	s, err := openVivid(single, sensors.Gray8)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var held []*sensors.Frame
	var sums []uint64
	for range 6 { // 8 buffers, 2 stay with the driver
		f, err := next(s, 20*time.Second)
		if err != nil {
			return "", err
		}
		held, sums = append(held, f), append(sums, sum(f.Planes[0].Data))
	}
	if _, err := next(s, time.Second); !errors.Is(err, context.DeadlineExceeded) {
		return "", fmt.Errorf("a frame came although the driver has only two buffers: %v", err)
	}
	letGo := s.Stats().LetGo
	for i, f := range held {
		if sum(f.Planes[0].Data) != sums[i] {
			return "", fmt.Errorf("held frame %d was overwritten", f.Seq)
		}
		f.Release()
	}
	f, err := next(s, 5*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	st := s.Stats()
	note := fmt.Sprintf("6 frames held, %d let go meanwhile, %d lost by us, held ones unchanged", letGo, st.Starved)
	if letGo == 0 || st.Starved > 0 || st.Restarts > 0 {
		return note, errors.New("the driver was starved")
	}
	return note, nil
}

// controlsKept sets a saved profile, with an automatic that must go before its value. Another process changes a control:
// with the next start of the stream it is as it was.
func controlsKept(*order) (string, error) {
	const path = "/tmp/profile.json"
	if err := (v4l2.Profile{"brightness": 77, "gain_auto": 0, "gain": 33, "focus": 3}).Save(path); err != nil {
		return "", err
	}
	profile, err := v4l2.LoadProfile(path)
	if err != nil {
		return "", err
	}
	o := vividOptions(single, sensors.Gray8)
	o.Controls = profile
	s, err := v4l2.Open(o)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := skim(s, 1); err != nil {
		return "", err
	}
	if err := errors.Join(setByName(single, "Brightness", 200), setByName(single, "Inject Fatal Streaming Error", 1), skim(s, 2)); err != nil {
		return "", err
	}
	id, err := find(single)
	if err != nil {
		return "", err
	}
	info, err := v4l2.Inspect(id)
	if err != nil {
		return "", err
	}
	at := map[string]int{}
	for _, c := range info.Controls {
		at[c.Name] = c.At
	}
	told := s.Stats().Control
	if at["brightness"] != 77 || at["gain"] != 33 || at["gain_auto"] != 0 || !strings.Contains(told, "focus") || strings.Contains(told, "gain") {
		return "", fmt.Errorf("the camera has %v, told is %q", at, told)
	}
	return fmt.Sprintf("saved profile is set at the start and after a restart; a control it has not is told: %s; %d formats, %d controls offered",
		told, len(info.Offers), len(info.Controls)), nil
}

func fatalError(*order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	const times = 10
	for range times {
		f, err := next(s, 20*time.Second)
		if err != nil {
			return "", err
		}
		f.Release()
		if err := setByName(single, "Inject Fatal Streaming Error", 1); err != nil {
			return "", err
		}
	}
	f, err := next(s, 20*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	if n := s.Stats().Restarts; n != times {
		return "", fmt.Errorf("%d restarts after %d errors", n, times)
	}
	return fmt.Sprintf("%d injected, %d restarts, frames came again each time", times, times), nil
}

func claimed(*order) (string, error) {
	release, err := claim(single)
	if err != nil {
		return "", err
	}
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := next(s, 10*time.Second); v4l2.StateOf(err) != v4l2.StateBusy {
		release()
		return "", fmt.Errorf("state %s: %v", v4l2.StateOf(err), err)
	}
	release()
	f, err := next(s, 10*time.Second)
	if err != nil {
		return "", err
	}
	f.Release()
	return "named busy; running once the other let go", nil
}

func unsuited(*order) (string, error) {
	s, err := openVivid(single, sensors.MJPEG)
	if err != nil {
		return "", err
	}
	defer s.Close()
	_, err = next(s, 10*time.Second)
	if v4l2.StateOf(err) != v4l2.StateUnsuited {
		return "", fmt.Errorf("state %s: %v", v4l2.StateOf(err), err)
	}
	return err.Error(), nil
}

// impostors pins cameras that are not there, while ones that look right are.
func impostors(*order) (string, error) {
	id, err := find(single)
	if err != nil {
		return "", err
	}
	for _, p := range []v4l2.Pin{
		{Place: "pci-0000:00:14.0-usb-0:1:1.0-video-index0", Card: id.Card}, // right name, wrong place
		{Place: single.Place, Card: "another"},                              // right place, wrong name
		{Place: single.Place, USB: "046d:085e"},                             // right place, no USB device
	} {
		s, err := v4l2.Open(v4l2.Options{Name: "cam", Pin: p})
		if err != nil {
			return "", err
		}
		_, err = next(s, 10*time.Second)
		_ = s.Close()
		if s := v4l2.StateOf(err); s != v4l2.StateFake && s != v4l2.StateSwapped || !errors.Is(err, v4l2.ErrRefused) {
			return "", fmt.Errorf("pin %+v: state %s: %v", p, v4l2.StateOf(err), err)
		}
	}
	return "name at the wrong place, other name and other bus at the right place: all refused", nil
}

// leftOut has the driver leave frames out: they are counted, and not held against us.
func leftOut(*order) (string, error) {
	if err := setByName(single, "Percentage of Dropped Buffers", 30); err != nil {
		return "", err
	}
	defer resetByName(single, "Percentage of Dropped Buffers")
	s, err := openVivid(single, sensors.Gray8)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := skim(s, 50); err != nil {
		return "", err
	}
	st := s.Stats()
	note := fmt.Sprintf("the driver is told to leave out 30 %%: %d of %d, %d lost by us, %d restarts", st.Lost, st.Lost+st.Frames, st.Starved, st.Restarts)
	if st.Lost == 0 || st.Starved+st.LetGo+st.Restarts > 0 {
		return note, errors.New("miscounted")
	}
	return note, nil
}

// lostByUs is slower than the camera and has nothing before it that drains the driver: what is lost must be called ours.
func lostByUs(*order) (string, error) {
	s, err := openVivid(single, sensors.Gray8)
	if err != nil {
		return "", err
	}
	defer s.Close()
	for range 25 {
		if err := skim(s, 1); err != nil {
			return "", err
		}
		time.Sleep(5 * time.Second / 2 / vividRate)
	}
	st := s.Stats()
	note := fmt.Sprintf("%d frames for a consumer of 2.5 intervals without Newest: %d missing, %d of them told as lost by us", st.Frames, st.Lost, st.Starved)
	if st.Starved == 0 || st.Starved < st.Lost*9/10 {
		return note, errors.New("our losses are held against the driver")
	}
	return note, nil
}

// sequenceWraps begins shortly before the driver's sequence number overflows.
func sequenceWraps(*order) (string, error) {
	if err := setByName(single, "Wrap Sequence Number", 1); err != nil {
		return "", err
	}
	defer resetByName(single, "Wrap Sequence Number")
	o := vividOptions(single, sensors.Gray8)
	o.Rate = 2 * vividRate
	s, err := v4l2.Open(o)
	if err != nil {
		return "", err
	}
	defer s.Close()
	const frames = 160 // it wraps behind 128
	if err := skim(s, frames); err != nil {
		return "", err
	}
	st := s.Stats()
	note := fmt.Sprintf("%d frames across it, %d missing, %d lost by us", st.Frames, st.Lost, st.Starved)
	if st.Lost > frames/2 || st.Starved > 0 {
		return note, errors.New("the overflow is taken for a gap")
	}
	return note, nil
}

// refusedOnce lets buffers, queueing and start fail once each: told by name, then the camera runs.
func refusedOnce(*order) (string, error) {
	for _, what := range []string{"Inject VIDIOC_REQBUFS Error", "Inject VIDIOC_QBUF Error", "Inject VIDIOC_STREAMON Error"} {
		s, err := openVivid(single, sensors.Gray8)
		if err != nil {
			return "", err
		}
		if err := setByName(single, what, 1); err != nil {
			return "", errors.Join(err, s.Close())
		}
		_, told := next(s, 10*time.Second)
		err = errors.Join(skim(s, 2), s.Close())
		if v4l2.StateOf(told) != v4l2.StateFailed || err != nil {
			return "", fmt.Errorf("%s: state %s (%v), then %w", what, v4l2.StateOf(told), told, err)
		}
	}
	return "buffers, queueing and start: each told as failed, then frames", nil
}

// meddled has another process try what would break a stream: no buffers at all, another format, a start of its own. The
// kernel says EBUSY to it, and the stream does not notice.
func meddled(*order) (string, error) {
	s, err := openVivid(single, sensors.YUYV)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := skim(s, 2); err != nil {
		return "", err
	}
	fd, err := rawOpen(single)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	none, format, start := [5]uint32{0, 1, 1}, rawFormat(320, 180, "GREY"), int32(1)
	for name, err := range map[string]error{
		"zero buffers": rawIoctl(fd, vidiocReqBufs, unsafe.Pointer(&none)), "another format": rawIoctl(fd, vidiocSFmt, unsafe.Pointer(&format)),
		"start": rawIoctl(fd, vidiocStreamOn, unsafe.Pointer(&start)),
	} {
		if !errors.Is(err, unix.EBUSY) {
			return "", fmt.Errorf("%s: the other is told %v", name, err)
		}
	}
	if err := skim(s, 10); err != nil {
		return "", err
	}
	if st := s.Stats(); st.Restarts+st.Starved+st.LetGo > 0 {
		return "", fmt.Errorf("the stream noticed: %+v", st)
	}
	return "zero buffers, another format, a second start: EBUSY for the other, the stream does not notice", nil
}

// formatChange has the source of an HDMI input change: the kernel tells of it, and the stream is started again.
func formatChange(*order) (string, error) {
	o := vividOptions(hdmi, sensors.Gray8)
	o.Width, o.Height, o.Rate = 0, 0, 0
	s, err := v4l2.Open(o)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := skim(s, 3); err != nil {
		return "", err
	}
	const times = 3
	for i := range times {
		if err := setByName(hdmi, "DV Timings", int32(i+1)); err != nil {
			return "", err
		}
		if err := setByName(hdmi, "DV Timings Signal Mode", 4); err != nil { // the chosen ones
			return "", err
		}
		if err := skim(s, 3); err != nil {
			return "", err
		}
		if err := setByName(hdmi, "DV Timings Signal Mode", 0); err != nil {
			return "", err
		}
		if err := skim(s, 3); err != nil {
			return "", err
		}
	}
	st := s.Stats()
	note := fmt.Sprintf("%d changes, %d restarts, frames came again each time", 2*times, st.Restarts)
	if st.Restarts < times || st.Connects != st.Restarts+1 {
		return note, fmt.Errorf("not started again: %+v", st)
	}
	return note, nil
}
