// Package core is the appliance itself: it owns the keys, the store, the models, the sensors and the fleet link, and puts
// the way of a frame together from them.
//
// Promises: Open brings the parts up in the order TPM, keys, store, models, and Close takes them down in reverse; whatever
// Open started is stopped again when it fails. A decision is announced only after it, its audit entry and its outbox
// record are durable in one transaction; an enrolment is acknowledged only after the same. One pipeline serves all;
// requests for it wait in a queue bounded by the policy, and are refused with ErrBusy when it is full. A sensor's frames
// never queue: it takes the newest.
//
// It blocks where its callers' contexts allow. It does not parse command lines, speak HTTP, or start processes.
package core

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/face"
	"vigil/secure"
	"vigil/secure/tpm"
	"vigil/sensors"
	"vigil/store"
)

// Errors that callers match. Those of the rooms (store.ErrNotFound, picture.ErrFormat and so on) come through.
var (
	// ErrBusy: the queue for the engines is full; try again.
	ErrBusy = errors.New("all engines are busy: try again in a second")
	// ErrNoModel: no face bundle is imported.
	ErrNoModel = errors.New("no face model is imported: run `vigild models import`")
	// ErrNoFace: the picture shows no face.
	ErrNoFace = errors.New("no face in the picture")
	// ErrSeveralFaces: it is not clear who is meant.
	ErrSeveralFaces = errors.New("more than one face in the picture")
	// ErrQuality: the face is too poor for the purpose.
	ErrQuality = errors.New("quality of the face is too low")
	// ErrSamples: too few good pictures, or not of one person.
	ErrSamples = errors.New("the samples cannot be enrolled")
	// ErrDuplicate: the person is enrolled already.
	ErrDuplicate = errors.New("this person is enrolled already")
	// ErrNotEnrolled: the person has no template of the model in use.
	ErrNotEnrolled = errors.New("not enrolled with this model")
	// ErrPresentationAttack: the face is judged to be a picture, a screen or a mask, not a living person.
	ErrPresentationAttack = errors.New("judged a presentation attack")
	// ErrModelChoice: it is not clear which of several bundles is to be used, or the chosen one does not fit.
	ErrModelChoice = errors.New("no bundle can be chosen")
	// ErrModality: this version has no pipeline for bundles of that modality.
	ErrModality = errors.New("no pipeline for bundles of this modality")
	// ErrNoLiveness: the policy requires liveness, the bundle in use cannot judge it.
	ErrNoLiveness = errors.New("policy.liveness is \"required\"")
	// ErrModelInUse: the bundle is the one that the device works with.
	ErrModelInUse = errors.New("it is in use")
	// ErrNoSensor: no sensor of that name.
	ErrNoSensor = errors.New("no such sensor")
	// ErrSensorBusy: an enrolment is going on at the sensor.
	ErrSensorBusy = errors.New("an enrolment is going on at this sensor")
)

// Version of the program, set by the linker.
var Version = "dev"

// storeName, modelsName: what lies in the state folder beside the identity.
const (
	storeName  = "vigil.db"
	modelsName = "models"
)

// Appliance is one running device. Make it with Open.
type Appliance struct {
	cfg     config.Config
	log     *slog.Logger
	now     func() time.Time
	started time.Time

	device  *secure.Device
	store   *store.Store
	runtime infer.Runtime
	vault   *vault.Vault
	stats   *Stats
	health  *health

	engine  chan struct{} // holds one token: the right to use pipe and result
	waiting atomic.Int32  // requests of the API that wait for it
	pipe    *face.Pipeline
	unready error // why pipe is nil
	result  *face.Result
	gallery *store.Gallery
	policy  decide.Policy
	matches []store.Match

	enrolling sync.Mutex
	locksMu   sync.Mutex
	locks     *decide.Lockouts

	pictures *sensors.Pool // for pictures of the API
	sensorMu sync.Mutex
	sensors  []*sensor
	watchers watchers
	fleet    fleetState
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// Options are what Open needs beside the configuration.
type Options struct {
	Logger *slog.Logger
	Now    func() time.Time // nil is time.Now
	// Runtime runs the models; it becomes the appliance's. nil opens ONNX Runtime as configured.
	Runtime infer.Runtime
}

// Open brings up an appliance whose state folder was provisioned. Nothing runs yet: see Start. Errors name the part that
// failed and the remedy.
func Open(ctx context.Context, cfg config.Config, o Options) (_ *Appliance, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Appliance{
		cfg: cfg, log: o.Logger.With("room", "core"), now: o.Now, started: o.Now(), runtime: o.Runtime,
		engine: make(chan struct{}, 1), pictures: sensors.NewPool(2), stats: newStats(), health: newHealth(o.Now),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.device, err = OpenDevice(ctx, cfg); err != nil {
		return a, err
	}
	if a.device.TPMInfo().IsSoftware {
		a.log.Warn("the TPM is a software one: keys are only as safe as this machine's disk; for development only")
		a.health.note("tpm", "software TPM: for development only")
	}
	if err = a.openStore(o.Logger); err != nil {
		return a, err
	}
	if a.vault, err = vault.Open(filepath.Join(cfg.StateDir, modelsName), a.device.Keyring()); err != nil {
		return a, err
	}
	if err = a.openModels(ctx); err != nil {
		return a, err
	}
	a.engine <- struct{}{}
	return a, nil
}

// OpenDevice opens the TPM and the identity in the state folder. The caller owns the result.
func OpenDevice(ctx context.Context, cfg config.Config) (*secure.Device, error) {
	t, err := tpm.Open(cfg.TPM.Address)
	if err != nil {
		return nil, err
	}
	d, err := secure.Open(ctx, t, cfg.StateDir)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return d, nil
}

// StorePath is where the store of a state folder lies.
func StorePath(stateDir string) string { return filepath.Join(stateDir, storeName) }

func (a *Appliance) openStore(log *slog.Logger) error {
	limits := store.DefaultOutboxLimits()
	limits.Classes = append(limits.Classes, classResult)
	var err error
	a.store, err = store.Open(store.Options{
		Path: StorePath(a.cfg.StateDir), Keyring: a.device.Keyring(), Now: a.now, Logger: log, Outbox: limits,
	})
	if err != nil {
		return err
	}
	a.locks = decide.NewLockouts(&a.policy)
	return a.restore()
}

// acquire gets the engines for a request of the API, waiting in the bounded queue.
func (a *Appliance) acquire(ctx context.Context) error {
	if int(a.waiting.Add(1)) > a.cfg.Policy.APIQueue {
		a.waiting.Add(-1)
		return ErrBusy
	}
	defer a.waiting.Add(-1)
	return a.acquireNow(ctx)
}

// acquireNow gets the engines, for sensors, of which there are few.
func (a *Appliance) acquireNow(ctx context.Context) error {
	select {
	case <-a.engine:
	case <-ctx.Done():
		return ctx.Err()
	}
	if a.pipe == nil {
		a.release()
		return a.unready
	}
	return nil
}

func (a *Appliance) release() {
	if a.result != nil {
		a.result.Wipe()
	}
	a.engine <- struct{}{}
}

// DeviceID is the device's stable name.
func (a *Appliance) DeviceID() string { return a.device.DeviceID() }

// Stats are the measured latencies.
func (a *Appliance) Stats() *Stats { return a.stats }

// Check verifies the whole store while it is in use.
func (a *Appliance) Check() (store.Report, error) { return a.store.Check() }

// Close stops what Start started and frees everything, last opened first. It is safe on an appliance that never opened
// completely, and may be called twice.
func (a *Appliance) Close() error {
	if a.cancel != nil {
		a.cancel()
	}
	var errs []error
	for _, s := range a.allSensors() {
		errs = append(errs, s.close())
	}
	a.running.Wait()
	a.watchers.close()
	if a.pipe != nil {
		errs = append(errs, a.pipe.Close())
		a.pipe = nil
	}
	if a.runtime != nil {
		errs = append(errs, a.runtime.Close())
	}
	if a.store != nil {
		errs = append(errs, a.saveTimes(), a.store.Close())
		a.store = nil
	}
	if a.device != nil {
		errs = append(errs, a.device.Close())
		a.device = nil
	}
	a.pictures.Wipe()
	return errors.Join(errs...)
}

// CleanUp removes what a crash can leave in the state folder: temporary files of atomic writes. It is run at every start
// and touches nothing that is in use.
func CleanUp(stateDir string) error {
	found, err := filepath.Glob(filepath.Join(stateDir, ".tmp-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range found {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}
