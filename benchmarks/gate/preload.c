/* What the gate puts between a process that it counts and the C library.
 *
 * Allocations of the first thread, which does the work, are counted, and the bytes that it copies
 * with calls of memcpy and memmove; both are written to the file that PENSTOCK_COUNTED names when the
 * process exits. What other threads do depends on when they are scheduled. With PYTHONMALLOC=malloc
 * Python's objects are among the allocations. Copies of a few bytes are those of fields, which
 * compilers make themselves or not as they please: they are left out.
 *
 * With PENSTOCK_SMALL_MAPS a map of more than 4 GiB gets 4 GiB: valgrind has fewer addresses than
 * the engine reserves, and the works of the gate touch only the beginning. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LARGEST_MAP (4ul << 30)
#define SMALLEST_COPY 64

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static unsigned long allocations, copied;
static __thread int first __attribute__((tls_model("initial-exec")));

__attribute__((constructor)) static void begin(void) {
    first = 1;
}

void *malloc(size_t size) {
    allocations += first;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations += first;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations += first;
    return __libc_realloc(old, size);
}

/* Loops of our own: whatever the C library would do here, it does under these names. */
void *memmove(void *to, const void *from, size_t size) {
    unsigned char *into = to;
    const unsigned char *out = from;
    if (first && size >= SMALLEST_COPY)
        copied += size;
    if (into <= out)
        for (size_t at = 0; at < size; at++)
            into[at] = out[at];
    else
        while (size--)
            into[size] = out[size];
    return to;
}

void *memcpy(void *to, const void *from, size_t size) {
    return memmove(to, from, size);
}

static size_t capped(size_t size) {
    return size > LARGEST_MAP && getenv("PENSTOCK_SMALL_MAPS") ? LARGEST_MAP : size;
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, at, capped(size), protection, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));

/* The whole of a capped map, and nothing of what lies behind it. */
int munmap(void *at, size_t size) {
    return (int)syscall(SYS_munmap, at, capped(size));
}

__attribute__((destructor)) static void tell(void) {
    const char *path = getenv("PENSTOCK_COUNTED");
    char text[64];
    int size, fd;
    if (path == NULL || (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600)) < 0)
        return;
    size = snprintf(text, sizeof text, "%lu %lu\n", allocations, copied);
    if (write(fd, text, (size_t)size) != size)
        abort();
    close(fd);
}
