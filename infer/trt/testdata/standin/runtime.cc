// A stand-in for TensorRT's runtime, compiled from NVIDIA's own headers of a generation (VT_GEN) and of version
// VT_VERSION, so that the calls through the real virtual tables are proved without a GPU. In a copy of NvInferImpl.h that
// the test makes, functions that are not written here trap.
//
// Its engines are text: a line "VIGIL-STAND-IN", then "input NAME DIM...", "output NAME DIM...", "scratch BYTES" in any
// order, and "end"; what follows is padding. Every output is filled with copies of the first input, by way of the scratch
// memory if that is large enough, all on the stream through the open CUDA runtime, be it real or a stand-in.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <NvInfer.h>

using namespace nvinfer1;

namespace {

using CopyAsync = int (*)(void *, const void *, size_t, int, void *);

CopyAsync copyAsync() { return reinterpret_cast<CopyAsync>(dlsym(RTLD_DEFAULT, "cudaMemcpyAsync")); }

struct Tensor {
	std::string name;
	bool input;
	Dims dims;
	size_t bytes() const {
		size_t n = 4;
		for (int i = 0; i < dims.nbDims; i++) n *= static_cast<size_t>(dims.d[i]);
		return n;
	}
};

struct Plan {
	std::vector<Tensor> tensors;
	int64_t scratch = 0;
};

class Context final : public IExecutionContext, public apiv::VExecutionContext {
   public:
	explicit Context(const Plan &plan) : plan_(plan) { IExecutionContext::mImpl = this; }
	IExecutionContext *getPImpl() noexcept override { return this; }
	void setDeviceMemoryV2(void *memory, int64_t bytes) noexcept override { scratch_ = memory, scratchBytes_ = bytes; }
	bool setInputShape(char const *name, Dims const &dims) noexcept override {
		for (auto &t : plan_.tensors) {
			if (t.name == name && t.input && t.dims.nbDims == dims.nbDims) return t.dims = dims, true;
		}
		return false;
	}
	bool setTensorAddress(char const *name, void *data) noexcept override { return at_[name] = data, true; }
	bool enqueueV3(cudaStream_t stream) noexcept override {
		const CopyAsync copy = copyAsync();
		const Tensor *in = nullptr;
		for (const auto &t : plan_.tensors) in = !in && t.input ? &t : in;
		if (!copy || !in || scratchBytes_ < plan_.scratch) return false;
		const void *from = at_[in->name];
		const size_t n = in->bytes();
		if (plan_.scratch >= static_cast<int64_t>(n)) {
			if (copy(scratch_, from, n, 3, stream)) return false;
			from = scratch_;
		}
		for (const auto &t : plan_.tensors) {
			if (t.input) continue;
			for (size_t done = 0; done < t.bytes(); done += n) {
				if (copy(static_cast<char *>(at_[t.name]) + done, from, std::min(n, t.bytes() - done), 3, stream)) return false;
			}
		}
		return true;
	}

   private:
	Plan plan_;
	std::map<std::string, void *> at_;
	void *scratch_ = nullptr;
	int64_t scratchBytes_ = 0;
};

class Engine final : public ICudaEngine, public apiv::VCudaEngine {
   public:
	explicit Engine(Plan plan) : plan_(std::move(plan)) { ICudaEngine::mImpl = this; }
	ICudaEngine *getPImpl() noexcept override { return this; }
	int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan_.tensors.size()); }
	char const *getIOTensorName(int32_t i) const noexcept override { return plan_.tensors[static_cast<size_t>(i)].name.c_str(); }
	TensorIOMode getTensorIOMode(char const *name) const noexcept override {
		return find(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
	}
	DataType getTensorDataType(char const *) const noexcept override { return DataType::kFLOAT; }
	TensorFormat getTensorFormat(char const *) const noexcept override { return TensorFormat::kLINEAR; }
	TensorLocation getTensorLocation(char const *) const noexcept override { return TensorLocation::kDEVICE; }
	Dims getTensorShape(char const *name) const noexcept override { return find(name).dims; }
	int64_t getDeviceMemorySizeV2() const noexcept override { return plan_.scratch; }
	IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
		return strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED ? new Context(plan_) : nullptr;
	}

   private:
	const Tensor &find(const char *name) const {
		for (const auto &t : plan_.tensors) {
			if (t.name == name) return t;
		}
		abort();
	}
	Plan plan_;
};

class Runtime final : public IRuntime, public apiv::VRuntime {
   public:
	explicit Runtime(ILogger *log) : log_(log) { IRuntime::mImpl = this; }
	IRuntime *getPImpl() noexcept override { return this; }
	void setTempfileControlFlags(TempfileControlFlags flags) noexcept override { inMemoryOnly_ = flags == 1; }
	ICudaEngine *deserializeCudaEngine(void const *blob, size_t bytes) noexcept override {
		return parse(std::string(static_cast<const char *>(blob), bytes), "a whole engine");
	}
	ICudaEngine *deserializeCudaEngineV2(IStreamReaderV2 &reader) noexcept override {
		std::string text;
		std::vector<char> piece(3000);  // no round number, so that pieces cross the reader's own
		if (!reader.seek(5, SeekPosition::kSET) || !reader.seek(-5, SeekPosition::kCUR)) return nullptr;
		for (;;) {
			const int64_t n = reader.read(piece.data(), static_cast<int64_t>(piece.size()), nullptr);
			if (n < 0) return log_->log(ILogger::Severity::kERROR, "the stream broke"), nullptr;
			if (n == 0) break;
			text.append(piece.data(), static_cast<size_t>(n));
		}
		return parse(text, "an engine by the stream reader");
	}

   private:
	ICudaEngine *parse(const std::string &text, const char *how) {
		std::istringstream in(text);
		std::string line, word;
		Plan plan;
		std::getline(in, line);
		if (line != "VIGIL-STAND-IN") return log_->log(ILogger::Severity::kERROR, "no engine of the stand-in"), nullptr;
		if (!inMemoryOnly_) return log_->log(ILogger::Severity::kERROR, "temporary files are allowed"), nullptr;
		while (std::getline(in, line) && line != "end") {
			std::istringstream words(line);
			words >> word;
			if (word == "scratch") {
				words >> plan.scratch;
				continue;
			}
			Tensor t{};
			t.input = word == "input";
			words >> t.name;
			for (int64_t d = 0; words >> d && t.dims.nbDims < 8;) t.dims.d[t.dims.nbDims++] = d;
			plan.tensors.push_back(t);
		}
		if (line != "end") return log_->log(ILogger::Severity::kERROR, "the engine is cut off"), nullptr;
		log_->log(ILogger::Severity::kWARNING, (std::string("stand-in: read ") + how).c_str());
		return new Engine(std::move(plan));
	}
	ILogger *log_;
	bool inMemoryOnly_ = false;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept { return VT_VERSION; }
extern "C" __attribute__((visibility("default"))) void *createInferRuntime_INTERNAL(void *logger, int32_t version) noexcept {
	auto *log = static_cast<ILogger *>(logger);
	if (version != VT_VERSION) return nullptr;
	log->log(ILogger::Severity::kWARNING, "stand-in: not NVIDIA's TensorRT, it only copies");
	return static_cast<IRuntime *>(new Runtime(log));
}
