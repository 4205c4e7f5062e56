/* Pushes an FLV file with librtmp in real time: librtmp_push FILE.flv "rtmp://host/app/name live=1" */
#include <librtmp/rtmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FILE_HEADER_BYTES = 9, TAG_HEADER_BYTES = 11, BACK_POINTER_BYTES = 4 };

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int fail(const char *what) {
    fprintf(stderr, "librtmp_push: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) return fail("usage: librtmp_push FILE.flv RTMP_URL");
    FILE *file = fopen(argv[1], "rb");
    unsigned char header[TAG_HEADER_BYTES];
    if (!file || fread(header, 1, FILE_HEADER_BYTES, file) != FILE_HEADER_BYTES || memcmp(header, "FLV", 3)) return fail("not an FLV file");
    fseek(file, BACK_POINTER_BYTES, SEEK_CUR);

    RTMP *rtmp = RTMP_Alloc();
    RTMP_Init(rtmp);
    if (!RTMP_SetupURL(rtmp, argv[2])) return fail("bad URL");
    RTMP_EnableWrite(rtmp);
    if (!RTMP_Connect(rtmp, NULL)) return fail("no connection");
    if (!RTMP_ConnectStream(rtmp, 0)) return fail("publishing refused");

    double started = now_ms();
    unsigned tags = 0;
    while (fread(header, 1, sizeof header, file) == sizeof header) {
        unsigned body_bytes = header[1] << 16 | header[2] << 8 | header[3];
        unsigned timestamp_ms = (unsigned)header[7] << 24 | header[4] << 16 | header[5] << 8 | header[6];
        unsigned tag_bytes = TAG_HEADER_BYTES + body_bytes + BACK_POINTER_BYTES;
        char *tag = malloc(tag_bytes);
        memcpy(tag, header, sizeof header);
        if (fread(tag + sizeof header, 1, tag_bytes - sizeof header, file) != tag_bytes - sizeof header) return fail("the file is cut short");
        double early_ms = timestamp_ms - (now_ms() - started);
        if (early_ms > 0) usleep(early_ms * 1000);
        if (RTMP_Write(rtmp, tag, tag_bytes) <= 0) return fail("the server has closed the connection");
        free(tag);
        tags++;
    }
    RTMP_Close(rtmp);
    RTMP_Free(rtmp);
    fclose(file);
    printf("%u tags sent\n", tags);
    return 0;
}
