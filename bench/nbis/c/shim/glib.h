/*
 * The few things of GLib that libfprint's copy of NBIS uses, so that it builds without GLib's headers. Memory that is
 * not there ends the program, as with GLib; a size that overflows is a failed assertion.
 */
#ifndef VIGIL_SHIM_GLIB_H
#define VIGIL_SHIM_GLIB_H

#include <assert.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

typedef size_t gsize;
typedef int gint;
typedef int gboolean;

#define G_MAXINT INT_MAX
#define G_BEGIN_DECLS
#define G_END_DECLS
#define TRUE 1
#define FALSE 0

#define g_assert(condition) assert(condition)
#define g_size_checked_mul(to, a, b) (!__builtin_mul_overflow((gsize)(a), (gsize)(b), (to)))

static inline void *g_realloc(void *old, gsize size) {
	void *p = realloc(old, size ? size : 1);
	if (p == NULL) {
		fputs("nbis: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

static inline void *g_malloc(gsize size) { return g_realloc(NULL, size); }
static inline void g_free(void *p) { free(p); }

#endif
