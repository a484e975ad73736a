# Targets for people. `make demo` and `make test` install what they need by themselves (scripts/setup).

VIGIL_DATA ?= $(abspath ../shared/data)
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -X vigil/daemon/core.Version=$(VERSION)
GOTEST     := go test -race -timeout 15m
export VIGIL_DATA

.PHONY: build appliance build-gpu demo-gpu-tags demo test lfw bench bench-fvc bench-discard bench-models bench-models-no-vnni bench-overhead bench-serving bench-quant bench-overload api-fuzz soak soak-swap fuzz lint setup lab clean

build: ## the binary, for this machine
	@scripts/setup build
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/vigild ./daemon

appliance: ## the binary that ships: without the demo, its broker and its throw-away authority
	@scripts/setup build
	go build -trimpath -tags appliance -ldflags '$(LDFLAGS) -s -w' -o bin/vigild-appliance ./daemon

GPUTAGS := cuda tensorrt
build-gpu: ## the binary for machines with an NVIDIA GPU; it starts without driver and libraries, and says what is missing
	@scripts/setup build
	@scripts/trt
	go build -trimpath -tags '$(GPUTAGS)' -ldflags '$(LDFLAGS)' -o bin/vigild-gpu ./daemon

demo-gpu-tags: ## the main job with that binary, on whatever runtime this machine has
	@scripts/setup demo
	@$(MAKE) --no-print-directory -s build-gpu
	@bin/vigild-gpu demo

setup: ## what the tests need
	@scripts/setup test

demo: ## the main job, end to end
	@scripts/setup demo
	@$(MAKE) --no-print-directory -s build
	@bin/vigild demo

test: ## all tests, with the race detector, swtpm, Mosquitto and ONNX Runtime
	@scripts/setup test
	go vet ./...
	go vet -tags appliance ./daemon
	go vet -tags '$(GPUTAGS)' ./infer/... ./daemon/...
	$(GOTEST) ./...
	go test -count=1 -run TestLFW ./infer/eval
	go test -count=1 -run TestTheDemoNeedsNoData ./daemon
	$(GOTEST) -tags '$(GPUTAGS)' ./infer/trt ./infer/cuda
	go test -tags '$(GPUTAGS)' -run 'Child|Orphan|TestTensorRT|TestNoEngine' ./daemon

lfw: ## accuracy on the 3,000 open pairs of LFW (about three minutes on two cores)
	@scripts/setup demo
	@$(MAKE) --no-print-directory -s build
	@bin/vigild eval pairs --every --models $(VIGIL_DATA)/models --pairs $(VIGIL_DATA)/protocols/lfw_pairs_open.txt --pictures $(VIGIL_DATA)/faces/lfw

bench: ## benchmarks of the frame path and the gallery, with allocs/op
	@scripts/setup demo
	go test -run '^$$' -bench . -benchmem ./kernels ./infer/... ./sensors/... ./store ./daemon/core

bench-fvc: ## fingerprints: NIST's mindtct and bozorth3 on the open FVC sets, and ours; REPORT=dir draws the curves
	@scripts/setup build
	@bench/nbis/setup
	@go run ./bench/fvc -data $(VIGIL_DATA)/fingerprints $(if $(REPORT),-out $(REPORT))

bench-discard: ## does quality predict errors: FNMR without the worst comparisons, by each measure, on LFW and FVC (a minute)
	@scripts/setup demo
	@VIGIL_DATA=$(VIGIL_DATA) go run ./bench/discard

bench-models: ## fp32 against INT8 of every public model, batch 1 and 8, one thread, with the gate's verdict (needs a quiet machine)
	@scripts/setup demo
	@go build -trimpath -o bin/bench-models ./bench/models
	@bin/bench-models $(BENCHFLAGS)

# ONNX Runtime picks its kernels by CPUID and has no switch for them, so VNNI is emulated away: qemu-user (Debian package
# qemu-user) runs the same binary on a Haswell, whose AVX2 sums pairs of uint8 x int8 in 16 bits. Files and fp32's
# answers are made natively first, for the emulator takes a minute for one picture in float. Its times say nothing about a
# processor: accuracy on the labelled pairs, with and without the reduced range of weights, is what this run is for.
bench-models-no-vnni: ## the gate on an emulated processor without VNNI, on 1,200 labelled pairs (about half an hour)
	@scripts/setup demo
	@command -v qemu-x86_64 >/dev/null || { echo "bench-models-no-vnni: qemu-x86_64 is missing: install qemu-user" >&2; exit 1; }
	@go build -trimpath -o bin/bench-models ./bench/models
	@for bits in 7 8; do \
		flags="-labelled -weight-bits $$bits -keep .cache/bench/no-vnni $(BENCHFLAGS)"; \
		echo "weights of $$bits bits, this processor:" && bin/bench-models $$flags 2>/dev/null && \
		echo "weights of $$bits bits, emulated:" && qemu-x86_64 -cpu Haswell bin/bench-models $$flags -runs 1 || exit 1; \
	done

bench-overhead: ## what a frame costs beyond its models, against a C program on ONNX Runtime's C API (needs a quiet machine)
	@scripts/setup demo
	@mkdir -p bin
	@cc -O2 -Wall -I"$$(go list -m -f '{{.Dir}}' github.com/yalue/onnxruntime_go)" -o bin/bench-raw bench/overhead/raw/raw.c -ldl
	@go build -trimpath -o bin/bench-overhead ./bench/overhead
	@bin/bench-overhead $(BENCHFLAGS)

bench-serving: ## identification beside FastAPI and onnxruntime, and MLPerf's scenarios (about half an hour; needs a quiet machine)
	@scripts/setup demo
	@scripts/venv .cache/bench/serving/venv bench/serving/requirements.txt
	@$(MAKE) --no-print-directory -s build
	@go build -trimpath -o bin/bench-serving ./bench/serving
	@bin/bench-serving $(BENCHFLAGS)

bench-quant: ## our quantisation against Microsoft's on the same pictures; ONNX's checker over every file that we write
	@scripts/setup demo
	@scripts/venv .cache/bench/venv bench/requirements.txt
	@go run ./bench/peer $(BENCHFLAGS)

api-fuzz: ## third-party tools against a real daemon: openapi-spec-validator, Schemathesis over mutual TLS, Triton's client; APIFUZZ="-time 10m -seed 2"
	@scripts/setup demo
	@scripts/venv .cache/api/venv bench/api/requirements.txt
	@$(MAKE) --no-print-directory -s build
	@go run ./bench/api $(APIFUZZ)

soak: ## 10,000 frames: goroutines, descriptors and memory must stay flat
	@scripts/setup demo
	VIGIL_SOAK_FRAMES=10000 go test -count=1 -run 'TestSteadyState' -v -timeout 30m ./daemon/core

soak-swap: ## 10,000 models loaded, exchanged and unloaded under traffic: memory flat, no request lost (two minutes)
	@scripts/setup demo
	VIGIL_SWAP_CYCLES=10000 go test -count=1 -run 'TestManySwapsUnderTraffic' -v -timeout 30m ./infer/sched

bench-overload: ## goodput at 50, 100 and 200 % of the capacity: our scheduler against a queue with time-outs (needs a quiet machine)
	@scripts/setup demo
	@go build -trimpath -o bin/bench-sched ./bench/sched
	@bin/bench-sched -data $(VIGIL_DATA) $(BENCHFLAGS)

LABTIME ?= 5s
lab: ## cameras in a machine of their own: boots Debian's kernel in QEMU, streams, unplugs, breaks; LABTIME=10m is the full run
	@scripts/setup build
	@scripts/lab
	@[ ! -e .cache/lab/root/boot/fetched ] || { go build -trimpath -o bin/lab ./lab && bin/lab -time $(LABTIME) $(LABFLAGS); }

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$p || exit 1; \
		done; \
	done

lint: ## golangci-lint with the repository's own configuration
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0 run ./...

clean:
	rm -rf bin .cache infer/trt/gen/*.syso
