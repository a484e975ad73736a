#include "turbo.h"

#include <dlfcn.h>
#include <stddef.h>

// The part of the TurboJPEG API that is used, as version 1.5 and later have it.
enum { RGB = 0, CMYK = 3, FAST_UPSAMPLE = 256, ACCURATE_DCT = 4096, STOP_ON_WARNING = 8192, LIMIT_SCANS = 32768 };

static struct {
	void *(*init)(void);
	int (*header)(void *, const unsigned char *, unsigned long, int *, int *, int *, int *);
	int (*decompress)(void *, const unsigned char *, unsigned long, unsigned char *, int, int, int, int, int);
	int (*destroy)(void *);
} lib;

int vigil_turbo_open(const char *name) {
	void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!so) return 0;
	lib.init = (void *(*)(void))dlsym(so, "tjInitDecompress");
	lib.header = (int (*)(void *, const unsigned char *, unsigned long, int *, int *, int *, int *))dlsym(so, "tjDecompressHeader3");
	lib.decompress = (int (*)(void *, const unsigned char *, unsigned long, unsigned char *, int, int, int, int, int))dlsym(so, "tjDecompress2");
	lib.destroy = (int (*)(void *))dlsym(so, "tjDestroy");
	return lib.init && lib.header && lib.decompress && lib.destroy;
}

int vigil_turbo_decode(unsigned char *dst, int width, int height, const unsigned char *data, unsigned long bytes) {
	void *h = lib.init();
	if (!h) return 0;
	int w = 0, hgt = 0, sub = 0, space = 0;
	int ok = lib.header(h, data, bytes, &w, &hgt, &sub, &space) == 0 && w == width && hgt == height && space < CMYK &&
	         lib.decompress(h, data, bytes, dst, width, 3 * width, height, RGB, FAST_UPSAMPLE | ACCURATE_DCT | STOP_ON_WARNING | LIMIT_SCANS) == 0;
	lib.destroy(h);
	return ok;
}
