# Targets for people. `make demo` and `make test` install what they need by themselves (scripts/setup).

VIGIL_DATA ?= $(abspath ../shared/data)
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS    := -X vigil/daemon/core.Version=$(VERSION)
GOTEST     := go test -race -timeout 15m
export VIGIL_DATA

.PHONY: build appliance demo test lfw bench bench-fvc bench-models bench-models-no-vnni bench-quant api-fuzz soak fuzz lint setup clean

build: ## the binary, for this machine
	@scripts/setup build
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/vigild ./daemon

appliance: ## the binary that ships: without the demo, its broker and its throw-away authority
	@scripts/setup build
	go build -trimpath -tags appliance -ldflags '$(LDFLAGS) -s -w' -o bin/vigild-appliance ./daemon

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
	$(GOTEST) ./...
	go test -count=1 -run TestLFW ./infer/eval
	go test -count=1 -run TestTheDemoNeedsNoData ./daemon

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

bench-models: ## fp32 against INT8 of every public model, batch 1 and 8, one thread, with the gate's verdict (needs a quiet machine)
	@scripts/setup demo
	@go build -trimpath -o bin/bench-models ./bench/models
	@bin/bench-models $(BENCHFLAGS)

# ONNX Runtime picks its kernels by CPUID and has no switch for them, so VNNI is emulated away: qemu-user (Debian package
# qemu-user) runs the same binary on a Haswell, whose AVX2 sums pairs of uint8 x int8 in 16 bits. Files and fp32's
# answers are made natively first, for the emulator takes a minute for one picture in float. Its times say nothing about a
# processor: the agreement with fp32, with and without the reduced range of weights, is what this run is for.
bench-models-no-vnni: ## the same on an emulated processor without VNNI, few runs: does the gate come out right there?
	@scripts/setup demo
	@command -v qemu-x86_64 >/dev/null || { echo "bench-models-no-vnni: qemu-x86_64 is missing: install qemu-user" >&2; exit 1; }
	@go build -trimpath -o bin/bench-models ./bench/models
	@for bits in 7 8; do \
		flags="-only mobilefacenet_foamliu.onnx -weight-bits $$bits -samples 64 -held 8 -batch 1 -keep .cache/bench/no-vnni $(BENCHFLAGS)"; \
		bin/bench-models $$flags -runs 1 >/dev/null && \
		echo "weights of $$bits bits:" && qemu-x86_64 -cpu Haswell bin/bench-models $$flags -runs 1 2>/dev/null || exit 1; \
	done

bench-quant: ## our quantisation against Microsoft's on the same pictures; ONNX's checker over every file that we write
	@scripts/setup demo
	@bench/setup
	@go run ./bench/peer $(BENCHFLAGS)

api-fuzz: ## third-party tools against a real daemon: openapi-spec-validator, Schemathesis over mutual TLS, Triton's client; APIFUZZ="-time 10m -seed 2"
	@scripts/setup demo
	@bench/api/setup
	@$(MAKE) --no-print-directory -s build
	@go run ./bench/api $(APIFUZZ)

soak: ## 10,000 frames: goroutines, descriptors and memory must stay flat
	@scripts/setup demo
	VIGIL_SOAK_FRAMES=10000 go test -count=1 -run 'TestSteadyState' -v -timeout 30m ./daemon/core

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
	rm -rf bin .cache
