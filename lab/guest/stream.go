package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"vigil/sensors"
	"vigil/sensors/v4l2"
)

// vividPattern makes every row of a picture the same and moves it with every frame, so that a torn or stale one shows.
func vividPattern(pin v4l2.Pin) error {
	return errors.Join(setByName(pin, "Test Pattern", 0), setByName(pin, "OSD Text Mode", 2), setByName(pin, "Horizontal Movement", 5),
		setByName(pin, "Timestamp Source", 1)) // start of exposure: the age of a frame is more than its transport
}

// streamVivid streams one format and looks at every pixel of every frame.
func streamVivid(o *order, pin v4l2.Pin, f sensors.Format, code string) (string, error) {
	if err := vividPattern(pin); err != nil {
		return "", err
	}
	options := vividOptions(pin, f)
	options.Code = code
	s, err := v4l2.Open(options)
	if err != nil {
		return "", err
	}
	defer s.Close()
	var c checker
	note, err := watch(o, s, c.look)
	if err != nil {
		return note, err
	}
	note += fmt.Sprintf(", %d torn, %d stale", c.torn, c.stale)
	if c.torn+c.stale > 0 {
		return note, errors.New("not every frame is whole and new")
	}
	return note, nil
}

// watch streams for as long as ordered, lets look see every frame, and judges what the source says of itself: frames that
// the driver left out by itself are told; one that was lost by us is an error.
func watch(o *order, s *v4l2.Source, look func(*sensors.Frame) error) (string, error) {
	var ages durations
	var began time.Time
	frames, before, jumped := 0, uint64(0), uint64(0)
	for began.IsZero() || time.Since(began) < o.each {
		f, err := take(s, frames == 0)
		if err != nil {
			return "", fmt.Errorf("after %d frames: %w", frames, err)
		}
		ages.add(time.Since(f.Captured))
		if frames == 0 {
			began = time.Now()
		} else {
			jumped += f.Seq - before - 1
		}
		frames, before = frames+1, f.Seq
		err = look(f)
		f.Release()
		if err != nil {
			return "", fmt.Errorf("frame %d: %w", f.Seq, err)
		}
		st := s.Stats()
		o.tell("%d frames, %d left out by the driver, %d lost by us, %d damaged", st.Frames, st.Lost-st.Starved, st.Starved+st.LetGo, st.Damaged)
	}
	secs, st := time.Since(began).Seconds(), s.Stats()
	note := fmt.Sprintf("%d frames at %.2f of %.0f fps in %.0f s; %d left out by the driver, %d lost by us, %d damaged; stamp to us %s",
		st.Frames, float64(frames-1)/secs, st.Rate, secs, st.Lost-st.Starved, st.Starved+st.LetGo, st.Damaged, &ages)
	if st.Starved+st.LetGo+st.Damaged+st.Restarts+st.Unstamped > 0 || jumped != st.Lost || uint64(frames) != st.Frames || frames < 5 {
		return note, fmt.Errorf("not every frame came: %d seen, %d missing in the sequence, %+v", frames, jumped, st)
	}
	return note, nil
}

// take is Next; a camera that comes up just now is waited for.
func take(s *v4l2.Source, comesUp bool) (*sensors.Frame, error) {
	if comesUp {
		return first(s)
	}
	return next(s, 30*time.Second)
}

// durations are many of them, for their quantiles.
type durations []time.Duration

func (d *durations) add(t time.Duration) { *d = append(*d, t) }

// quantile sorts them.
func (d *durations) quantile(permille int) time.Duration {
	slices.Sort(*d)
	return (*d)[min(len(*d)*permille/1000, len(*d)-1)]
}

func (d *durations) String() string {
	if len(*d) == 0 {
		return "never"
	}
	ms := func(permille int) float64 { return d.quantile(permille).Seconds() * 1e3 }
	return fmt.Sprintf("p50 %.1f ms p99 %.1f ms max %.1f ms", ms(500), ms(990), ms(1000))
}

// checker compares frames of vividPattern.
type checker struct {
	torn, stale int
	last        []byte // the row of the frame before
}

func (c *checker) look(f *sensors.Frame) error {
	if f.Width != 640 || f.Height != 360 || len(f.Planes[0].Data) < f.Planes[0].StrideBytes*f.Height {
		return fmt.Errorf("it is %dx%d with %d bytes", f.Width, f.Height, len(f.Planes[0].Data))
	}
	for _, p := range f.Planes {
		for y := p.StrideBytes; y > 0 && y+p.StrideBytes <= len(p.Data); y += p.StrideBytes {
			if !bytes.Equal(p.Data[:p.StrideBytes], p.Data[y:y+p.StrideBytes]) {
				c.torn++
				break
			}
		}
	}
	row := f.Planes[0].Data[:f.Planes[0].StrideBytes]
	if bytes.Equal(row, c.last) {
		c.stale++
	}
	c.last = append(c.last[:0], row...)
	return nil
}
