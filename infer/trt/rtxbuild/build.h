// What main.cc and a generation's build.cc have in common. No TensorRT header is seen from here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace rtxbuild {

// Libraries are the entry points of an open TensorRT, found by name; see NvInfer.h and NvOnnxParser.h of any version.
struct Libraries {
	void *(*createBuilder)(void *logger, int32_t version);
	void *(*createParser)(void *network, void *logger, int version);
	int (*parserVersion)();
	int32_t version;  // what getInferLibVersion answered
};

// Complaint is one error of the parser; node is empty when it is about the whole model.
struct Complaint {
	std::string node, op, text;
	int code;
};

// Result is what became of one model.
struct Result {
	bool parsed = false, built = false;
	int32_t layers = 0, quantise = 0, dequantise = 0;  // of the parsed network
	size_t engineBytes = 0;
	double parseSeconds = 0, buildSeconds = 0;
	std::vector<Complaint> complaints;  // of the parser
	std::vector<std::string> log;       // the library's errors, the first of them
};

}  // namespace rtxbuild

// The one symbol of a generation's library. It reads the model, keeps nothing, and lets no exception out.
extern "C" void rtxbuild_build(const rtxbuild::Libraries &lib, const void *model, size_t bytes, rtxbuild::Result &result) noexcept;
using rtxbuild_build_t = decltype(&rtxbuild_build);
