package core

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"vigil/daemon/config"
	"vigil/secure"
	"vigil/sensors"
	"vigil/sensors/session"
)

// SessionExt is how the names of recorded sessions end; the driver "replay" plays them.
const SessionExt = ".vsession"

// sessionKeys keeps the keys of sessions under the device's key for templates: only this device plays what it recorded.
type sessionKeys struct{ app *Appliance }

// sessionSchema is the version of what is sealed: 32 bytes of key.
const sessionSchema = 1

func (k sessionKeys) place(id string) secure.AAD {
	return secure.AAD{Bucket: "session", Key: id, Schema: sessionSchema}
}

// Seal implements session.Keeper: the wrapped DEK of the session with its length in front, then the key under the DEK.
func (k sessionKeys) Seal(key []byte, id string) ([]byte, error) {
	dek, wrapped, err := k.app.device.Keyring().NewDEK(secure.Templates, k.place(id))
	if err != nil {
		return nil, err
	}
	sealed, err := dek.Seal(key, k.place(id))
	out := append(binary.BigEndian.AppendUint16(nil, uint16(len(wrapped))), wrapped...)
	return append(out, sealed...), errors.Join(err, dek.Close())
}

// Open implements session.Keeper.
func (k sessionKeys) Open(sealed []byte, id string) ([]byte, error) {
	if len(sealed) < 2 || len(sealed)-2 < int(binary.BigEndian.Uint16(sealed)) {
		return nil, session.ErrFormat
	}
	at := 2 + int(binary.BigEndian.Uint16(sealed))
	dek, err := k.app.device.Keyring().OpenDEK(secure.Templates, sealed[2:at], k.place(id))
	if err != nil {
		return nil, err
	}
	key, err := dek.Open(sealed[at:], k.place(id))
	return key, errors.Join(err, dek.Close())
}

// Recording says what is to be recorded.
type Recording struct {
	Sensor  string        // a configured one
	Consent string        // who agreed to what
	Expires time.Duration // from now
	For     time.Duration // how long
	// Progress is called after each frame with the time so far; nil: nobody asks.
	Progress func(done time.Duration)
}

// Recorded is what came of it.
type Recorded struct {
	Sensor  string    `json:"sensor"`
	Frames  uint64    `json:"frames"`
	Skipped int       `json:"skipped"` // broken pictures
	Seconds float64   `json:"seconds"`
	Expires time.Time `json:"expires"`
}

// Record writes what a sensor sees to out, until the time is over, the sensor ends or the context does; all three are a
// good end. The sensors must not be running (before Start), because a device has one reader. It is audited before the first
// frame is taken. Errors: ErrNoSensor, session.ErrNoConsent, those of the sensor and of out.
func (a *Appliance) Record(ctx context.Context, o Recording, out io.Writer) (r Recorded, err error) {
	c, err := a.sensorConfig(o.Sensor)
	if err != nil {
		return r, err
	}
	start := a.now()
	r.Sensor, r.Expires = c.Name, start.Add(o.Expires).UTC()
	w, err := session.NewWriter(out, session.Header{
		Sensor: c.Name, Driver: c.Driver, Modality: c.Modality, DPI: c.DPI, Created: start.UTC(), Expires: r.Expires, Consent: o.Consent,
	}, sessionKeys{a})
	if err != nil {
		return r, err
	}
	src, err := a.openDriver(c)
	if err != nil {
		return r, fmt.Errorf("sensor %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	detail := map[string]any{"sensor": c.Name, "consent": o.Consent, "expires": r.Expires, "seconds": o.For.Seconds()}
	if err := a.audit(ctx, "sensor recorded", "", detail, true); err != nil {
		return r, err
	}
	err = a.copyFrames(ctx, o, src, w, &r)
	r.Frames, r.Seconds = w.Frames(), a.now().Sub(start).Seconds()
	return r, errors.Join(err, w.Finish())
}

func (a *Appliance) sensorConfig(name string) (config.Sensor, error) {
	for _, c := range a.cfg.Sensors {
		if c.Name == name {
			return c, nil
		}
	}
	return config.Sensor{}, fmt.Errorf("%w: %q", ErrNoSensor, name)
}

// copyFrames takes frames until one of the three ends.
func (a *Appliance) copyFrames(ctx context.Context, o Recording, src sensors.Source, w *session.Writer, r *Recorded) error {
	ctx, cancel := context.WithTimeout(ctx, o.For)
	defer cancel()
	start := time.Now()
	for {
		f, err := src.Next(ctx)
		var skipped *sensors.SkippedError
		switch {
		case err == nil:
			err = w.Write(f)
			f.Release()
			if err != nil {
				return err
			}
			if o.Progress != nil {
				o.Progress(min(time.Since(start), o.For))
			}
		case errors.As(err, &skipped):
			r.Skipped++
		case errors.Is(err, sensors.ErrUnplugged):
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		default:
			return err
		}
	}
}
