// Package core is the appliance itself: it owns the keys, the store, the models, the sensors and the fleet link, and puts
// the way of a frame together from them.
//
// Promises: Open brings the parts up in the order TPM, keys, store, models, and Close takes them down in reverse; whatever
// Open started is stopped again when it fails. A decision is announced only after it, its audit entry and its outbox
// record are durable in one transaction; an enrolment is acknowledged only after the same. Each
// modality has some pipelines over one set of engines (runtime.workers) and one queue, bounded by the policy: sensors' frames
// go before requests of the API, and those before work in the background. A request that cannot be answered in time is
// refused at once with ErrBusy and the time to come back; its picture is not even decoded. A sensor's frames never queue: it
// takes the newest. A bundle is exchanged between two frames; what was seen is wiped at the end of every turn.
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
	"time"

	"vigil/actuators"
	"vigil/daemon/config"
	"vigil/daemon/decide"
	"vigil/daemon/vault"
	"vigil/infer"
	"vigil/infer/chain"
	"vigil/infer/trt"
	"vigil/secure"
	"vigil/secure/tpm"
	"vigil/sensors"
	"vigil/store"
)

// Errors that callers match. Those of the rooms (store.ErrNotFound, picture.ErrFormat and so on) come through.
var (
	// ErrBusy: the queue for the engines is full, or the request cannot be answered in time behind the work ahead. The error
	// is a *sched.Refusal too, which says when to try again.
	ErrBusy = errors.New("all engines are busy")
	// ErrNoModel: no face bundle is imported. (A finger bundle is in the binary.)
	ErrNoModel = errors.New("no face model is imported: run `vigild models import`")
	// ErrNoFace: the picture shows no face.
	ErrNoFace = errors.New("no face in the picture")
	// ErrNoFinger: the picture shows no finger.
	ErrNoFinger = errors.New("no finger in the picture")
	// ErrSeveralFaces: it is not clear who is meant.
	ErrSeveralFaces = errors.New("more than one face in the picture")
	// ErrQuality: the face or finger is too poor for the purpose.
	ErrQuality = errors.New("quality is too low")
	// ErrSamples: too few good pictures, or not of one person.
	ErrSamples = errors.New("the samples cannot be enrolled")
	// ErrDuplicate: the person is enrolled already.
	ErrDuplicate = errors.New("this person is enrolled already")
	// ErrNotEnrolled: the person has no template of the model in use.
	ErrNotEnrolled = errors.New("not enrolled with this model")
	// ErrPresentationAttack: the face is judged to be a picture, a screen or a mask, not a living person.
	ErrPresentationAttack = errors.New("judged a presentation attack")
	// ErrOff: the configuration switches the modality off.
	ErrOff = errors.New("switched off in the configuration")
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
	// links are the chain of runtimes, verdicts what became of each; spare is opened when a bundle does not run on runtime.
	links    []chain.Link
	verdicts []chain.Verdict
	spare    *spareRuntime
	spareMu  sync.Mutex
	builder  EngineBuilder // nil: none
	building sync.Mutex    // held while engines are built
	vault    *vault.Vault
	stats    *Stats
	health   *health

	face    *Unit
	finger  *Unit
	unready error // why there is no runtime

	enrolling sync.Mutex
	locksMu   sync.Mutex
	locks     *decide.Lockouts
	lockRules decide.Policy // what locks go by

	pictures *sensors.Pool // for pictures of the API
	decoders chan struct{} // as many as are decoded or wait decoded
	sensorMu sync.Mutex
	sensors  []*sensor
	bus      frameBus
	watchers watchers
	swapped  chan struct{} // has a value after an exchange of models
	fleet    fleetState
	serving  serving
	cancel   context.CancelFunc
	running  sync.WaitGroup

	wrap func(config.Sensor, sensors.Source) sensors.Source // nil: sources as they are

	outputs    []*output
	actuatorOf func(config.Actuator) (actuators.Actuator, error) // nil: the configured drivers
}

// Options are what Open needs beside the configuration.
type Options struct {
	Logger *slog.Logger
	Now    func() time.Time // nil is time.Now
	// Runtime runs the models; it becomes the appliance's. nil opens the first of LinksOf.
	Runtime infer.Runtime
	// LinksOf makes the runtimes in the order in which they are tried, TensorRT's with the engines of this device; nil
	// takes RuntimeLinks.
	LinksOf func(trt.Engines) []chain.Link
	// Builder builds engines; nil: none can be built.
	Builder EngineBuilder
	// Source stands around the source of every sensor, and owns it; nil leaves them as they are. Faults by script are put there.
	Source func(config.Sensor, sensors.Source) sensors.Source
	// Actuator opens an output; nil takes the driver that the configuration names.
	Actuator func(config.Actuator) (actuators.Actuator, error)
}

// Open brings up an appliance whose state folder was provisioned. Nothing runs yet: see Start. Errors name the part that
// failed and the remedy.
func Open(ctx context.Context, cfg config.Config, o Options) (_ *Appliance, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Appliance{
		cfg: cfg, log: o.Logger.With("room", "core"), now: o.Now, started: o.Now(), runtime: o.Runtime,
		stats: newStats(), health: newHealth(o.Now), swapped: make(chan struct{}, 1), builder: o.Builder, actuatorOf: o.Actuator,
		wrap: o.Source,
	}
	if o.LinksOf != nil {
		a.links = o.LinksOf(a.engineSource)
	} else {
		a.links = RuntimeLinks(cfg, a.engineSource)
	}
	ahead := decodeAhead(a.workers())
	a.pictures, a.decoders = sensors.NewPool(ahead), make(chan struct{}, ahead)
	if a.face, err = newUnit(a, Face); err != nil {
		return nil, err
	}
	if a.finger, err = newUnit(a, Finger); err != nil {
		return nil, errors.Join(err, a.face.close())
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
	a.lockRules = basePolicy(a.cfg.Policy)
	a.locks = decide.NewLockouts(&a.lockRules)
	return a.restore()
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
	errs = append(errs, a.bus.close())
	a.watchers.close()
	a.serving.news.tell()
	for _, u := range a.units() {
		u.keepCurve(context.Background())
		errs = append(errs, u.close())
	}
	if a.spare != nil {
		errs = append(errs, a.spare.Close())
		a.spare = nil
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
