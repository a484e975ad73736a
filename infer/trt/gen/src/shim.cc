// TensorRT's C++ interface behind shim.h. Compiled once a generation, with that generation's headers alone, by scripts/trt:
//   VT_GEN      10, 11 or 1 (TensorRT-RTX)
//   VT_ENTRY    the one symbol that stays visible
// It needs no C++ library: no exceptions, no RTTI, no new. Its objects live in malloc's memory.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include "shim.h"

// The headers' own classes have virtual destructors, whose deleting form names operator delete; a pure virtual function is
// never called.
void operator delete(void *p) noexcept { free(p); }
void operator delete(void *p, size_t) noexcept { free(p); }
extern "C" __attribute__((visibility("hidden"))) void __cxa_pure_virtual() { abort(); }

namespace {

using namespace nvinfer1;

// make and destroy stand in for new and delete of our own objects.
inline void *room(size_t bytes) { return calloc(1, bytes); }
struct Place {};
}  // namespace

inline void *operator new(size_t, void *p, Place) noexcept { return p; }

namespace {

template <typename T, typename... A>
T *make(A... args) {
	void *p = room(sizeof(T));
	return p ? new (p, Place{}) T(args...) : nullptr;
}

template <typename T>
void destroy(T *p) {
	if (!p) return;
	p->~T();
	free(p);
}

// Held deletes an object of the library's when it goes out of scope.
template <typename T>
class Held {
   public:
	explicit Held(void *p) : p_(static_cast<T *>(p)) {}
	~Held() { delete p_; }
	Held(const Held &) = delete;
	Held &operator=(const Held &) = delete;
	T *operator->() const { return p_; }
	T &operator*() const { return *p_; }
	explicit operator bool() const { return p_ != nullptr; }
	T *release() {
		T *p = p_;
		p_ = nullptr;
		return p;
	}

   private:
	T *p_;
};

void append(char *text, uint32_t &used, const char *line) {
	const size_t n = strlen(line);
	if (used + n + 2 > VT_LOG_BYTES) return;
	if (used) text[used++] = '\n';
	memcpy(text + used, line, n);
	used += n;
	text[used] = 0;
}

// note writes one line into a log.
void note(vt_log *log, bool error, const char *line) {
	while (__atomic_test_and_set(&log->lock, __ATOMIC_ACQUIRE)) {
	}
	if (error) {
		append(log->errors, log->errors_used, line);
	} else {
		append(log->warnings, log->warnings_used, line);
	}
	__atomic_clear(&log->lock, __ATOMIC_RELEASE);
}

// forget drops the errors so far.
void forget(vt_log *log) {
	while (__atomic_test_and_set(&log->lock, __ATOMIC_ACQUIRE)) {
	}
	log->errors_used = 0;
	log->errors[0] = 0;
	__atomic_clear(&log->lock, __ATOMIC_RELEASE);
}

class Logger final : public ILogger {
   public:
	explicit Logger(vt_log *log) : log_(log) {}
	void log(Severity severity, const char *text) noexcept override {
		if (severity <= Severity::kWARNING && text) note(log_, severity <= Severity::kERROR, text);
	}
	vt_log *sink() const { return log_; }

   private:
	vt_log *log_;
};

// real is p, or NULL for what cannot be an address: without a driver createInferRuntime_INTERNAL of TensorRT 10.16 answers
// 0x228, a null pointer to which the place of a base class was added.
void *real(void *p) { return reinterpret_cast<uintptr_t>(p) < 4096 ? nullptr : p; }

void copyName(char *to, const char *from) { snprintf(to, VT_NAME_BYTES, "%s", from ? from : ""); }

bool copyDims(const Dims &from, int32_t &rank, int64_t *dims) {
	if (from.nbDims < 0 || from.nbDims > VT_MAX_DIMS) return false;
	rank = from.nbDims;
	for (int32_t i = 0; i < rank; i++) dims[i] = from.d[i];
	return true;
}

Dims dimsOf(const vt_shape &s) {
	Dims d{};
	d.nbDims = s.rank;
	for (int32_t i = 0; i < s.rank && i < VT_MAX_DIMS; i++) d.d[i] = s.dims[i];
	return d;
}

// Progress tells of the phases of a build; TensorRT may call from several threads.
class Progress final : public IProgressMonitor {
   public:
	Progress(vt_step step, uintptr_t user) : step_(step), user_(user) {}
	void phaseStart(const char *phase, const char *parent, int32_t steps) noexcept override { tell(phase, parent, 0, steps); }
	bool stepComplete(const char *phase, int32_t step) noexcept override { return tell(phase, nullptr, step + 1, 0); }
	void phaseFinish(const char *phase) noexcept override { tell(phase, nullptr, -1, 0); }

   private:
	bool tell(const char *phase, const char *parent, int32_t step, int32_t steps) {
		if (!step_) return true;
		return step_(user_, phase ? phase : "", parent ? parent : "", step, steps) != 0;
	}
	vt_step step_;
	uintptr_t user_;
};

// complain writes what the parser does not take, node by node, in place of what it logged on the way: that is of places in
// its sources.
void complain(const nvonnxparser::IParser &parser, vt_log *log) {
	char line[1024];
	if (parser.getNbErrors() > 0) forget(log);
	for (int i = 0; i < parser.getNbErrors(); i++) {
		const nvonnxparser::IParserError *e = parser.getError(i);
		const char *node = e->nodeName(), *op = e->nodeOperator(), *what = e->desc();
		snprintf(line, sizeof line, "node \"%s\" (%s): %s", node ? node : "", op ? op : "", what ? what : "");
		note(log, true, line);
	}
}

void count(const INetworkDefinition &network, vt_counts &c) {
	c.layers = network.getNbLayers();
	for (int32_t i = 0; i < c.layers; i++) {
		const LayerType type = network.getLayer(i)->getType();
		c.quantize += type == LayerType::kQUANTIZE;
		c.dequantize += type == LayerType::kDEQUANTIZE;
	}
}

// fix gives inputs whose sizes are open the shapes that the caller wants: a profile of one point.
bool fix(IBuilder &builder, IBuilderConfig &config, const INetworkDefinition &network, const vt_order &order, vt_log *log) {
	IOptimizationProfile *profile = nullptr;  // the builder's
	char line[512];
	for (int32_t i = 0; i < network.getNbInputs(); i++) {
		const ITensor *input = network.getInput(i);
		const Dims have = input->getDimensions();
		bool open = false;
		for (int32_t k = 0; k < have.nbDims; k++) open = open || have.d[k] < 0;
		if (!open) continue;
		const vt_shape *want = nullptr;
		for (int32_t k = 0; k < order.shape_count; k++) {
			if (!strcmp(order.shapes[k].name, input->getName())) want = &order.shapes[k];
		}
		if (!want || want->rank != have.nbDims) {
			snprintf(line, sizeof line, "input \"%s\" leaves sizes open, and no shape of its rank is given for it", input->getName());
			note(log, true, line);
			return false;
		}
		if (!profile) profile = builder.createOptimizationProfile();
		if (!profile) return false;
		const Dims d = dimsOf(*want);
		for (const auto which : {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX}) {
			if (!profile->setDimensions(input->getName(), which, d)) return false;
		}
	}
	return !profile || config.addOptimizationProfile(profile) >= 0;
}

NetworkDefinitionCreationFlags creationFlags() {
#if VT_GEN == 10
	// Types are those that the file says, as in later generations, where this is no choice any more.
	return 1u << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
	return 0;
#endif
}

void *build(const vt_entry *entry, const vt_order *order, vt_counts *counts, vt_log *log) {
	Logger logger(log);
	Progress progress(order->step, order->user);
	Held<IBuilder> builder(real(entry->create_builder(&logger, entry->version)));
	if (!builder) return nullptr;
	Held<INetworkDefinition> network(builder->createNetworkV2(creationFlags()));
	Held<IBuilderConfig> config(builder->createBuilderConfig());
	if (!network || !config || !entry->create_parser) return nullptr;
	Held<nvonnxparser::IParser> parser(real(entry->create_parser(&*network, &logger, entry->parser_version())));
	if (!parser) return nullptr;
	if (order->step && !order->step(order->user, "parse", "", 0, 1)) return nullptr;
	const bool parsed = parser->parse(order->model, order->model_bytes);
	complain(*parser, log);
	if (!parsed) return nullptr;
	if (order->step && !order->step(order->user, "parse", "", -1, 1)) return nullptr;
	count(*network, *counts);
	if (!fix(*builder, *config, *network, *order, log)) return nullptr;
	config->setProgressMonitor(&progress);
	if (order->workspace_bytes) config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, order->workspace_bytes);
	return builder->buildSerializedNetwork(*network, *config);
}

const void *builtData(void *built) { return static_cast<IHostMemory *>(built)->data(); }
size_t builtBytes(void *built) { return static_cast<IHostMemory *>(built)->size(); }
void builtFree(void *built) { delete static_cast<IHostMemory *>(built); }

// Runtime is the library's with the logger that it keeps a pointer to.
struct Runtime {
	explicit Runtime(vt_log *log) : logger(log) {}
	Logger logger;
	IRuntime *it = nullptr;
};

void runtimeFree(void *runtime) {
	auto *r = static_cast<Runtime *>(runtime);
	delete r->it;
	destroy(r);
}

void *runtime(const vt_entry *entry, vt_log *log) {
	auto *r = make<Runtime>(log);
	if (!r) return nullptr;
	r->it = static_cast<IRuntime *>(real(entry->create_runtime(&r->logger, entry->version)));
	if (!r->it) {
		runtimeFree(r);
		return nullptr;
	}
	// An engine may carry code that is loaded by a file: never by one with a name, for it would lie on the disk in clear.
	r->it->setTempfileControlFlags(1u << static_cast<uint32_t>(TempfileControlFlag::kALLOW_IN_MEMORY_FILES));
	return r;
}

void *engine(void *runtime, const void *data, size_t bytes) {
	return static_cast<Runtime *>(runtime)->it->deserializeCudaEngine(data, bytes);
}

// streams: deserializeCudaEngine(IStreamReaderV2&) came with 10.7 and is in every 11 and in every TensorRT-RTX.
int32_t streams(int32_t version) {
#if VT_GEN == 10
	return version >= 100700;
#else
	(void)version;
	return 1;
#endif
}

class Reader final : public IStreamReaderV2 {
   public:
	Reader(vt_read read, vt_copy copy, int64_t bytes, uintptr_t user) : read_(read), copy_(copy), bytes_(bytes), user_(user) {}

	int64_t read(void *to, int64_t bytes, cudaStream_t stream) noexcept override {
		int64_t done = 0;
		while (done < bytes) {
			const void *data = nullptr;
			const int64_t n = read_(user_, at_, bytes - done, &data);
			if (n < 0) return -1;
			if (n == 0) break;
			if (copy_(static_cast<char *>(to) + done, data, n, stream) != 0) return -1;
			done += n;
			at_ += n;
		}
		return done;
	}

	bool seek(int64_t offset, SeekPosition where) noexcept override {
		const int64_t from = where == SeekPosition::kSET ? 0 : where == SeekPosition::kCUR ? at_ : bytes_;
		if (from + offset < 0 || from + offset > bytes_) return false;
		at_ = from + offset;
		return true;
	}

   private:
	vt_read read_;
	vt_copy copy_;
	int64_t bytes_, at_ = 0;
	uintptr_t user_;
};

void *engineStream(void *runtime, vt_read read, vt_copy copy, int64_t bytes, uintptr_t user) {
	Reader reader(read, copy, bytes, user);
	return static_cast<Runtime *>(runtime)->it->deserializeCudaEngine(reader);
}

void engineFree(void *engine) { delete static_cast<ICudaEngine *>(engine); }

int32_t tensors(void *engine) { return static_cast<ICudaEngine *>(engine)->getNbIOTensors(); }

int32_t tensor(void *engine, int32_t i, vt_tensor *out) {
	const auto *e = static_cast<ICudaEngine *>(engine);
	const char *name = e->getIOTensorName(i);
	if (!name || strlen(name) >= VT_NAME_BYTES) return 0;
	copyName(out->name, name);
	out->input = e->getTensorIOMode(name) == TensorIOMode::kINPUT;
	out->float32 = e->getTensorDataType(name) == DataType::kFLOAT && e->getTensorFormat(name) == TensorFormat::kLINEAR &&
				   e->getTensorLocation(name) == TensorLocation::kDEVICE;
	return copyDims(e->getTensorShape(name), out->rank, out->dims);
}

int64_t scratchBytes(void *engine) { return static_cast<ICudaEngine *>(engine)->getDeviceMemorySizeV2(); }

void *context(void *engine) {
	return static_cast<ICudaEngine *>(engine)->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED);
}

void contextFree(void *context) { delete static_cast<IExecutionContext *>(context); }

int32_t setScratch(void *context, void *device, int64_t bytes) {
	static_cast<IExecutionContext *>(context)->setDeviceMemoryV2(device, bytes);
	return 1;
}

int32_t setShape(void *context, const vt_shape *shape) {
	return static_cast<IExecutionContext *>(context)->setInputShape(shape->name, dimsOf(*shape));
}

int32_t setAddress(void *context, const char *name, void *device) {
	return static_cast<IExecutionContext *>(context)->setTensorAddress(name, device);
}

int32_t enqueue(void *context, void *stream) {
	return static_cast<IExecutionContext *>(context)->enqueueV3(static_cast<cudaStream_t>(stream));
}

#define VT_TEXT2(x) #x
#define VT_TEXT(x) VT_TEXT2(x)
#if VT_GEN == 1
#define VT_HEADERS "RTX " VT_TEXT(TRT_MAJOR_RTX) "." VT_TEXT(TRT_MINOR_RTX)
#else
#define VT_HEADERS VT_TEXT(TRT_MAJOR_ENTERPRISE) "." VT_TEXT(TRT_MINOR_ENTERPRISE)
#endif

const vt_api api = {
	VT_HEADERS, build,		builtData, builtBytes, builtFree,	 runtime, runtimeFree, streams,	   engine,	  engineStream,
	engineFree, tensors,	tensor,	   scratchBytes, context,	 contextFree, setScratch, setShape, setAddress, enqueue,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const vt_api *VT_ENTRY(void) { return &api; }
