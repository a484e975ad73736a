// Parses and builds one model. It is compiled once per generation of TensorRT's headers, into a library of its own: the
// objects behind the entry points are C++ vtables, whose order the headers of another generation may not know, and inline
// functions of two generations must not meet in one program.

#include "build.h"

#include <chrono>
#include <exception>
#include <memory>

#include <NvInfer.h>
#include <NvOnnxParser.h>

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Logger keeps the library's first errors: later ones are their echoes.
class Logger : public nvinfer1::ILogger {
   public:
	explicit Logger(std::vector<std::string> &lines) : lines_(lines) {}
	void log(Severity severity, const char *text) noexcept override {
		if (severity > Severity::kERROR || lines_.size() >= 16) return;
		try {
			lines_.emplace_back(text);
		} catch (const std::exception &) {  // no memory for a message: the verdict counts
		}
	}

   private:
	std::vector<std::string> &lines_;
};

std::string text(const char *s) { return s ? s : ""; }

void collect(const nvonnxparser::IParser &parser, std::vector<rtxbuild::Complaint> &out) {
	for (int i = 0; i < parser.getNbErrors(); i++) {
		const nvonnxparser::IParserError *e = parser.getError(i);
		out.push_back({text(e->nodeName()), text(e->nodeOperator()), text(e->desc()), static_cast<int>(e->code())});
	}
}

void count(const nvinfer1::INetworkDefinition &network, rtxbuild::Result &r) {
	r.layers = network.getNbLayers();
	for (int32_t i = 0; i < r.layers; i++) {
		switch (network.getLayer(i)->getType()) {
			case nvinfer1::LayerType::kQUANTIZE: r.quantise++; break;
			case nvinfer1::LayerType::kDEQUANTIZE: r.dequantise++; break;
			default: break;
		}
	}
}

void build(const rtxbuild::Libraries &lib, const void *model, size_t bytes, rtxbuild::Result &r) {
	Logger logger(r.log);
	// Destroyed in reverse: the parser before the network, the network before the builder that made it.
	std::unique_ptr<nvinfer1::IBuilder> builder(static_cast<nvinfer1::IBuilder *>(lib.createBuilder(&logger, lib.version)));
	if (!builder) return;
	std::unique_ptr<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(0));
	std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
	if (!network || !config) return;
	std::unique_ptr<nvonnxparser::IParser> parser(
		static_cast<nvonnxparser::IParser *>(lib.createParser(network.get(), &logger, lib.parserVersion())));
	if (!parser) return;

	auto start = Clock::now();
	r.parsed = parser->parse(model, bytes);
	r.parseSeconds = since(start);
	collect(*parser, r.complaints);
	if (!r.parsed) return;
	count(*network, r);

	start = Clock::now();
	std::unique_ptr<nvinfer1::IHostMemory> engine(builder->buildSerializedNetwork(*network, *config));
	r.buildSeconds = since(start);
	if (engine) {
		r.built = engine->size() > 0;
		r.engineBytes = engine->size();
	}
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void rtxbuild_build(const rtxbuild::Libraries &lib, const void *model, size_t bytes,
																	 rtxbuild::Result &r) noexcept {
	try {
		build(lib, model, bytes, r);
	} catch (const std::exception &e) {
		r.parsed = r.built = false;
		r.log.emplace_back(e.what());
	}
}
