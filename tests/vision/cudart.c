/* A stand-in for NVIDIA's libcudart: the calls that edge_cl makes, on host memory, as strict as a GPU.

   Addresses "on the GPU" are marked, so that reading one without a copy crashes. Copies wait in a queue, as in
   a stream, until something flushes it: an engine that starts, or cudaStreamSynchronize. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MARK ((uintptr_t)1 << 62)
#define QUEUE 64
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_HANDLE = 400 };
enum { TO_DEVICE = 1, TO_HOST = 2 };

static struct copy { void *target; const void *source; size_t size; } queue[QUEUE];
static int waiting, live, streams;

static int marked(const void *address) { return ((uintptr_t)address & MARK) != 0; }
static void *plain(const void *address) { return (void *)((uintptr_t)address & ~MARK); }

int cudaGetDeviceProperties(char *properties, int device) {
    const char *name = getenv("STANDIN_GPU");
    strcpy(properties, name ? name : "NVIDIA Tegra X1");
    return device == 0 ? OK : INVALID_VALUE;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 5 : 3;
    return device == 0 && (attribute == 75 || attribute == 76) ? OK : INVALID_VALUE;
}

int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = (size_t)1 << 30;
    *total = (size_t)4 << 30;
    return OK;
}

int cudaMalloc(void **address, size_t size) {
    if (getenv("STANDIN_NO_MEMORY")) return OUT_OF_MEMORY;
    *address = (void *)((uintptr_t)calloc(1, size) | MARK);
    live++;
    return OK;
}

int cudaFree(void *address) {
    if (!marked(address)) return INVALID_VALUE;
    free(plain(address));
    live--;
    return OK;
}

int cudaStreamCreate(void **stream) {
    *stream = malloc(1);
    streams++;
    return OK;
}

int cudaStreamDestroy(void *stream) {
    free(stream);
    streams--;
    return OK;
}

int cudaMemcpyAsync(void *target, const void *source, size_t size, int kind, void *stream) {
    if (!stream) return INVALID_HANDLE;
    if (waiting == QUEUE || marked(target) != (kind == TO_DEVICE) || marked(source) != (kind == TO_HOST))
        return INVALID_VALUE;
    queue[waiting++] = (struct copy){target, source, size};
    return OK;
}

void standin_flush(void) {
    for (int i = 0; i < waiting; i++) memcpy(plain(queue[i].target), plain(queue[i].source), queue[i].size);
    waiting = 0;
}

int cudaStreamSynchronize(void *stream) {
    if (!stream) return INVALID_HANDLE;
    standin_flush();
    return OK;
}

const char *cudaGetErrorString(int status) { return status == OUT_OF_MEMORY ? "out of memory" : "invalid"; }

int standin_live(void) { return live + streams + waiting; }
