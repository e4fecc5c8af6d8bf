/* What the gate puts between a process that it counts and the C library.
 *
 * Allocations are counted, and their number is written to the file that PENSTOCK_ALLOCATIONS names
 * when the process exits. With PYTHONMALLOC=malloc Python's objects are among them.
 *
 * With PENSTOCK_SMALL_MAPS a map of more than 4 GiB gets 4 GiB: valgrind has fewer addresses than
 * the engine reserves, and the works of the gate touch only the beginning. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LARGEST_MAP (4ul << 30)

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_ulong allocations;

void *malloc(size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(old, size);
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
    const char *path = getenv("PENSTOCK_ALLOCATIONS");
    char text[32];
    int size, fd;
    if (path == NULL || (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600)) < 0)
        return;
    size = snprintf(text, sizeof text, "%lu\n", atomic_load(&allocations));
    if (write(fd, text, (size_t)size) != size)
        abort();
    close(fd);
}
