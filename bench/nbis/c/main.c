/*
 * nbis runs NIST's minutiae detector (mindtct) and matcher (bozorth3) on many pictures and many pairs in one process.
 *
 *   nbis minutiae PPI       reads lines "PICTURE.pgm OUT.xyt" from standard input; writes the minutiae of each picture as
 *                           mindtct does (x y theta quality, origin bottom-left) and prints how many there are, or
 *                           "-1 REASON", one line per picture
 *   nbis match MINUTIAE     reads lines "A.xyt B.xyt"; keeps the MINUTIAE best of each by quality, as bozorth3 -n does
 *                           (its default is 150), and prints bozorth3's score, or "-1 REASON", one line per pair
 *
 * Pictures are binary PGM, 8 bits. Paths hold no blanks. Both use globals of NBIS: run several processes for several
 * cores. Exit code 1 on wrong usage or input that is no such list.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bozorth.h>
#include <lfs.h>

#define MAX_PATH 2048
#define MAX_SIDE 4096

/* globals that NBIS expects of the program that it is linked into */
FILE *errorfp;
int verbose_main, verbose_load, verbose_bozorth, verbose_threshold;
int m1_xyt, max_minutiae = DEFAULT_BOZORTH_MINUTIAE;
int min_computable_minutiae = MIN_COMPUTABLE_BOZORTH_MINUTIAE;

/* read_number skips blanks and comments of a PGM header; -1 if there is no number up to 65535. */
static int read_number(FILE *f) {
	int c = fgetc(f), n = 0, digits = 0;
	while (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#') {
		if (c == '#')
			while (c != '\n' && c != EOF)
				c = fgetc(f);
		c = fgetc(f);
	}
	for (; c >= '0' && c <= '9'; c = fgetc(f), digits++)
		if ((n = n * 10 + c - '0') > 65535)
			return -1;
	return digits > 0 ? n : -1;
}

/* read_pgm returns the pixels of a binary 8-bit PGM, to be freed; NULL if it is none. */
static unsigned char *read_pgm(const char *path, int *w, int *h) {
	FILE *f = fopen(path, "rb");
	if (f == NULL)
		return NULL;
	unsigned char *data = NULL;
	if (fgetc(f) == 'P' && fgetc(f) == '5') {
		*w = read_number(f);
		*h = read_number(f);
		if (read_number(f) == 255 && *w > 0 && *h > 0 && *w <= MAX_SIDE && *h <= MAX_SIDE) {
			size_t n = (size_t)*w * *h;
			data = g_malloc(n);
			if (fread(data, 1, n, f) != n) {
				g_free(data);
				data = NULL;
			}
		}
	}
	fclose(f);
	return data;
}

static int write_xyt(const char *path, MINUTIAE *m, int w, int h) {
	FILE *f = fopen(path, "w");
	if (f == NULL)
		return -1;
	for (int i = 0; i < m->num; i++) {
		int x, y, t;
		lfs2nist_minutia_XYT(&x, &y, &t, m->list[i], w, h);
		fprintf(f, "%d %d %d %d\n", x, y, t, sround(m->list[i]->reliability * 100.0));
	}
	return fclose(f);
}

static void one_picture(const char *in, const char *out, double ppmm) {
	int w, h, map_w, map_h, bw, bh, bd;
	unsigned char *binary, *data = read_pgm(in, &w, &h);
	int *quality, *direction, *low_contrast, *low_flow, *high_curve;
	MINUTIAE *m;
	if (data == NULL) {
		printf("-1 not a binary 8-bit PGM\n");
		return;
	}
	int err = get_minutiae(&m, &quality, &direction, &low_contrast, &low_flow, &high_curve, &map_w, &map_h, &binary, &bw,
			       &bh, &bd, data, w, h, 8, ppmm, &g_lfsparms_V2);
	g_free(data);
	if (err != 0) {
		printf("-1 mindtct error %d\n", err);
		return;
	}
	if (write_xyt(out, m, w, h) == 0)
		printf("%d\n", m->num);
	else
		printf("-1 cannot write: %s\n", strerror(errno));
	free_minutiae(m);
	g_free(quality);
	g_free(direction);
	g_free(low_contrast);
	g_free(low_flow);
	g_free(high_curve);
	g_free(binary);
}

struct minutia_row {
	int x, y, theta, quality, order;
};

static int by_quality(const void *a, const void *b) {
	const struct minutia_row *p = a, *q = b;
	return p->quality != q->quality ? q->quality - p->quality : p->order - q->order;
}

static int by_place(const void *a, const void *b) {
	const struct minutia_row *p = a, *q = b;
	return p->x != q->x ? p->x - q->x : p->y != q->y ? p->y - q->y : p->order - q->order;
}

/* read_xyt keeps the most minutiae of the best quality, in the order and with the angles (-180..180) of bozorth3. */
static int read_xyt(const char *path, int most, struct xyt_struct *out) {
	struct minutia_row rows[MAX_FILE_MINUTIAE];
	int n = 0;
	FILE *f = fopen(path, "r");
	if (f == NULL)
		return -1;
	while (n < MAX_FILE_MINUTIAE && fscanf(f, "%d %d %d %d", &rows[n].x, &rows[n].y, &rows[n].theta, &rows[n].quality) == 4) {
		rows[n].order = n;
		n++;
	}
	fclose(f);
	qsort(rows, n, sizeof rows[0], by_quality);
	if (n > most)
		n = most;
	qsort(rows, n, sizeof rows[0], by_place);
	for (int i = 0; i < n; i++) {
		out->xcol[i] = rows[i].x;
		out->ycol[i] = rows[i].y;
		out->thetacol[i] = rows[i].theta > 180 ? rows[i].theta - 360 : rows[i].theta;
	}
	out->nrows = n;
	return 0;
}

static void one_pair(const char *a, const char *b, int most) {
	static struct xyt_struct probe, gallery;
	if (read_xyt(a, most, &probe) != 0 || read_xyt(b, most, &gallery) != 0) {
		printf("-1 cannot read: %s\n", strerror(errno));
		return;
	}
	int n = bozorth_probe_init(&probe);
	printf("%d\n", bozorth_to_gallery(n, &probe, &gallery));
}

int main(int argc, char **argv) {
	char line[2 * MAX_PATH + 4], a[MAX_PATH + 1], b[MAX_PATH + 1];
	errorfp = stderr;
	double value = argc == 3 ? atof(argv[2]) : 0;
	int detect = argc == 3 && strcmp(argv[1], "minutiae") == 0 && value >= 100 && value <= 2000;
	int match = argc == 3 && strcmp(argv[1], "match") == 0 && value >= 10 && value <= MAX_BOZORTH_MINUTIAE;
	if (!detect && !match) {
		fputs("usage: nbis minutiae PPI (100..2000) | nbis match MINUTIAE (10..200)\n", stderr);
		return 1;
	}
	while (fgets(line, sizeof line, stdin) != NULL) {
		if (sscanf(line, "%2048s %2048s", a, b) != 2) {
			fprintf(stderr, "nbis: not two paths: %s", line);
			return 1;
		}
		if (detect)
			one_picture(a, b, value / 25.4);
		else
			one_pair(a, b, (int)value);
		if (ferror(stdout) || fflush(stdout) != 0)
			return 1;
	}
	return 0;
}
