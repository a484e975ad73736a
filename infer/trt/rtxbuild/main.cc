// rtxbuild asks NVIDIA's TensorRT whether it takes an ONNX file: its parser reads the file, its builder makes a serialised
// engine of it. Neither needs a GPU or a driver. The answer is one JSON object on standard output.
//
//   rtxbuild LIBRARIES                      prints the version, and the generation of headers that it speaks
//   rtxbuild LIBRARIES GENERATION.so MODEL  parses and builds MODEL with that generation's build.cc
//
// LIBRARIES is the folder of libtensorrt_rtx.so, libtensorrt_onnxparser_rtx.so and libcudart.so.13.
// Exit status: 0 built, 1 refused, 2 the question could not be put.

#include <dlfcn.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "build.h"

namespace {

[[noreturn]] void fail(const std::string &what) {
	std::fprintf(stderr, "rtxbuild: %s\n", what.c_str());
	std::exit(2);
}

void *open(const std::string &path, int mode) {
	void *lib = dlopen(path.c_str(), RTLD_NOW | mode);
	if (!lib) fail(dlerror());
	return lib;
}

template <typename F>
F find(void *lib, const char *name) {
	void *f = dlsym(lib, name);
	if (!f) fail(std::string("the library has no ") + name);
	return reinterpret_cast<F>(f);
}

// generation names the headers for a version of the library, "" if none are known: those of RTX up to 1.4 and of
// Enterprise up to 10 crash a newer library, so nothing is guessed upwards of what was tried.
std::string generation(int32_t version) {
	const int major = version / 10000, minor = version / 100 % 100;
	if (major == 1 && minor >= 3 && minor <= 7) return "TRT-RTX-1." + std::to_string(minor);
	if (major == 11 && minor <= 4) return "TRT-Enterprise-11.4";
	return "";
}

std::string quoted(const std::string &s) {
	std::string out = "\"";
	char code[8];
	for (const unsigned char c : s) {
		if (c == '"' || c == '\\') {
			out += '\\';
			out += static_cast<char>(c);
		} else if (c < 0x20 || c >= 0x7f) {  // Latin-1: the library's messages are ASCII
			std::snprintf(code, sizeof code, "\\u%04x", c);
			out += code;
		} else {
			out += static_cast<char>(c);
		}
	}
	return out + '"';
}

// peakBytes is the most memory that was resident; getrusage would tell that of the process that started this one, if it was more.
long long peakBytes() {
	std::ifstream status("/proc/self/status");
	for (std::string line; std::getline(status, line);) {
		long long kib = 0;
		if (std::sscanf(line.c_str(), "VmHWM: %lld kB", &kib) == 1) return kib * 1024;
	}
	return 0;
}

void print(const rtxbuild::Result &r, int32_t version) {
	std::printf(
		"{\"version\":%d,\"parsed\":%s,\"built\":%s,\"layers\":%d,\"quantize\":%d,\"dequantize\":%d,\"engine_bytes\":%zu,"
		"\"parse_seconds\":%.3f,\"build_seconds\":%.3f,\"peak_bytes\":%lld,\"errors\":[",
		version, r.parsed ? "true" : "false", r.built ? "true" : "false", r.layers, r.quantise, r.dequantise, r.engineBytes, r.parseSeconds,
		r.buildSeconds, peakBytes());
	for (size_t i = 0; i < r.complaints.size(); i++) {
		const auto &c = r.complaints[i];
		std::printf("%s{\"node\":%s,\"op\":%s,\"code\":%d,\"text\":%s}", i ? "," : "", quoted(c.node).c_str(), quoted(c.op).c_str(), c.code,
					quoted(c.text).c_str());
	}
	std::printf("],\"log\":[");
	for (size_t i = 0; i < r.log.size(); i++) std::printf("%s%s", i ? "," : "", quoted(r.log[i]).c_str());
	std::printf("]}\n");
}

// limit bounds what a library that goes astray can take from the machine.
void limit() {
	const rlimit cpu{120, 120}, memory{8ull << 30, 8ull << 30}, core{0, 0};
	if (setrlimit(RLIMIT_CPU, &cpu) || setrlimit(RLIMIT_AS, &memory) || setrlimit(RLIMIT_CORE, &core)) fail("cannot limit itself");
}

}  // namespace

int main(int argc, char **argv) {
	if (argc != 2 && argc != 4) fail("usage: rtxbuild LIBRARIES [GENERATION.so MODEL]");
	limit();
	const std::string folder = argv[1];
	// The engine's library opens the CUDA runtime by its name: it finds the one that is open already.
	open(folder + "/libcudart.so.13", RTLD_GLOBAL);
	void *infer = open(folder + "/libtensorrt_rtx.so", RTLD_LOCAL);
	const int32_t version = find<int32_t (*)()>(infer, "getInferLibVersion")();
	const std::string headers = generation(version);
	if (argc == 2) {
		std::printf("{\"version\":%d,\"generation\":%s}\n", version, quoted(headers).c_str());
		return 0;
	}
	void *onnx = open(folder + "/libtensorrt_onnxparser_rtx.so", RTLD_LOCAL);
	const rtxbuild::Libraries lib{
		find<void *(*)(void *, int32_t)>(infer, "createInferBuilder_INTERNAL"),
		find<void *(*)(void *, void *, int)>(onnx, "createNvOnnxParser_INTERNAL"),
		find<int (*)()>(onnx, "getNvOnnxParserVersion"),
		version,
	};
	const auto build = find<rtxbuild_build_t>(open(argv[2], RTLD_LOCAL), "rtxbuild_build");
	std::ifstream file(argv[3], std::ios::binary);
	if (!file) fail(std::string("cannot open ") + argv[3]);
	const std::vector<char> model((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
	rtxbuild::Result result;
	build(lib, model.data(), model.size(), result);
	print(result, version);
	std::fflush(stdout);
	std::_Exit(result.built ? 0 : 1);  // without the libraries' own destructors: the work is done
}
