#ifndef VIGIL_TURBO_H
#define VIGIL_TURBO_H

// vigil_turbo_open finds the library, once; 0 if it is not there or lacks something.
int vigil_turbo_open(const char *name);

// vigil_turbo_decode writes a JPEG of this size as RGB, 3 * width bytes a row; 0 if it is not one that the library decodes
// without complaint.
int vigil_turbo_decode(unsigned char *dst, int width, int height, const unsigned char *data, unsigned long bytes);

#endif
