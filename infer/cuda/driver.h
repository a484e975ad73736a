#pragma once

#include <stdint.h>

// What the driver said. missing: libcuda.so.1 or a function of it is not there, text says which.
typedef struct vigil_cuda_answer {
	int missing, error;  // error: CUresult of the call that text names
	int driver, devices, major, minor;
	uint64_t bytes;
	char name[256], text[512];
} vigil_cuda_answer;

// vigil_cuda_probe fills in a, which is zeroed.
void vigil_cuda_probe(vigil_cuda_answer *a);
