/* What the engine asks of the machine: atomics, futexes, robust mutexes, open-file locks, clocks. Linux. */
#ifndef PENSTOCK_OS_H
#define PENSTOCK_OS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t load64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void store64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline uint32_t load32(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void store32(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline void store8(uint8_t *word, uint8_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline uint32_t swap32(uint32_t *word, uint32_t value) {
    return __atomic_exchange_n(word, value, __ATOMIC_ACQ_REL);
}
static inline uint32_t add32(uint32_t *word, int32_t value) {
    return __atomic_add_fetch(word, value, __ATOMIC_ACQ_REL);
}
static inline uint64_t add64(uint64_t *word, int64_t value) {
    return __atomic_add_fetch(word, value, __ATOMIC_ACQ_REL);
}

/* Sleep while *word == seen, at most timeout_us. Words are in shared maps or private; both work. */
static inline void futex_wait(uint32_t *word, uint32_t seen, int64_t timeout_us) {
    struct timespec span = {timeout_us / 1000000, (timeout_us % 1000000) * 1000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &span, NULL, 0);
}
static inline void futex_wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }
static inline void futex_wake_one(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); }

/* Sleep while both words are as seen, at most timeout_us. A kernel before 5.16 sleeps on the first, for 5 ms. */
static inline void futex_wait_either(uint32_t *word, uint32_t seen, uint32_t *other, uint32_t other_seen,
                                     int64_t timeout_us) {
#if defined(SYS_futex_waitv) && defined(FUTEX_32)
    struct futex_waitv both[2] = {{seen, (uintptr_t)word, FUTEX_32, 0}, {other_seen, (uintptr_t)other, FUTEX_32, 0}};
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (until.tv_nsec / 1000 + timeout_us) / 1000000;
    until.tv_nsec = (until.tv_nsec / 1000 + timeout_us) % 1000000 * 1000;
    if (syscall(SYS_futex_waitv, both, 2, 0, &until, CLOCK_MONOTONIC) >= 0 || errno != ENOSYS) return;
#endif
    (void)other; (void)other_seen;
    futex_wait(word, seen, timeout_us < 5000 ? timeout_us : 5000);
}

static inline int mutex_shared_init(pthread_mutex_t *mutex) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    int failed = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return failed;
}
/* 0 taken, 1 taken from a holder who died; a mutex is never stolen by time-out. */
static inline int mutex_lock(pthread_mutex_t *mutex) {
    if (pthread_mutex_lock(mutex) == EOWNERDEAD) { pthread_mutex_consistent(mutex); return 1; }
    return 0;
}
/* 0 taken, 1 taken from a dead holder, -1 busy. */
static inline int mutex_try(pthread_mutex_t *mutex) {
    int got = pthread_mutex_trylock(mutex);
    if (got == EOWNERDEAD) { pthread_mutex_consistent(mutex); return 1; }
    return got ? -1 : 0;
}
static inline uint64_t clock_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}
/* The same as it was at the last tick, some milliseconds ago at most: that costs a tenth. */
static inline uint64_t clock_tick_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}
static inline uint64_t monotonic_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}
static inline void nap_us(uint32_t us) {
    struct timespec span = {us / 1000000, (long)(us % 1000000) * 1000};
    nanosleep(&span, NULL);
}
/* An open-file-description lock on byte 0: type F_RDLCK, F_WRLCK or F_UNLCK. 0 or errno. */
static inline int file_lock(int fd, int type, int wait) {
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    while (fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock))
        if (errno != EINTR) return errno;
    return 0;
}
/* The same for another byte, without waiting: who has which segment mapped. EAGAIN if another holds it. */
static inline int byte_lock(int fd, int type, uint64_t byte) {
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    while (fcntl(fd, F_OFD_SETLK, &lock))
        if (errno != EINTR) return errno;
    return 0;
}
/* Write all of it, or return errno. */
static inline int write_all(int fd, const void *bytes, size_t size, off_t at) {
    while (size) {
        ssize_t put = pwrite(fd, bytes, size, at);
        if (put < 0) { if (errno == EINTR) continue; return errno; }
        bytes = (const char *)bytes + put; size -= (size_t)put; at += put;
    }
    return 0;
}
/* Have a range of a file written back, and wait for that: who syncs meanwhile waits for so much, not for all of it.
   It proves nothing, a sync has to follow; but of an error that is told here no later sync of this descriptor tells.
   0 or errno. */
static inline int write_back(int fd, off_t at, off_t size) {
    int failed;
    do failed = sync_file_range(fd, at, size, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) ? errno : 0;
    while (failed == EINTR);
    return failed == ENOSYS ? 0 : failed;
}
static inline int file_grow(int fd, off_t size) {
    int failed;
    do failed = fallocate(fd, 0, 0, size) ? errno : 0; while (failed == EINTR);
    return failed;
}

/* SipHash-2-4 (Aumasson, Bernstein 2012): the keyed hash in a receipt. words 64-bit words, key 128 bits. */
#define SIP_ROT(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND                                                                            \
    v0 += v1; v1 = SIP_ROT(v1, 13); v1 ^= v0; v0 = SIP_ROT(v0, 32); v2 += v3;                \
    v3 = SIP_ROT(v3, 16); v3 ^= v2; v0 += v3; v3 = SIP_ROT(v3, 21); v3 ^= v0; v2 += v1;      \
    v1 = SIP_ROT(v1, 17); v1 ^= v2; v2 = SIP_ROT(v2, 32);
static inline uint64_t siphash(const uint64_t *key, const uint64_t *words, int count) {
    uint64_t v0 = key[0] ^ 0x736f6d6570736575ull, v1 = key[1] ^ 0x646f72616e646f6dull;
    uint64_t v2 = key[0] ^ 0x6c7967656e657261ull, v3 = key[1] ^ 0x7465646279746573ull;
    for (int at = 0; at <= count; at++) {
        uint64_t word = at < count ? words[at] : (uint64_t)(count * 8) << 56;
        v3 ^= word; SIP_ROUND SIP_ROUND v0 ^= word;
    }
    v2 ^= 0xff; SIP_ROUND SIP_ROUND SIP_ROUND SIP_ROUND
    return v0 ^ v1 ^ v2 ^ v3;
}

/* A page of a map that cannot be read from its file raises SIGBUS. Inside guarded() that ends the call with -1;
   elsewhere the handler that was there before gets it. */
static __thread sigjmp_buf *guard_mark;
static struct sigaction guard_before;

static void guard_caught(int number, siginfo_t *info, void *context) {
    if (guard_mark) siglongjmp(*guard_mark, 1);
    if (guard_before.sa_flags & SA_SIGINFO) guard_before.sa_sigaction(number, info, context);
    else if (guard_before.sa_handler != SIG_DFL && guard_before.sa_handler != SIG_IGN) guard_before.sa_handler(number);
    else sigaction(SIGBUS, &guard_before, NULL);        /* the access is tried again, and ends as it would have */
}

static inline void guard_install(void) {
    struct sigaction now, ours;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = guard_caught;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    if (sigaction(SIGBUS, NULL, &now) || (now.sa_flags & SA_SIGINFO && now.sa_sigaction == guard_caught)) return;
    guard_before = now;
    sigaction(SIGBUS, &ours, NULL);
}

static inline int guarded(int (*call)(void *), void *with) {
    sigjmp_buf here;
    sigjmp_buf *outer = guard_mark;
    int result = -1;
    if (sigsetjmp(here, 0) == 0) {
        guard_mark = &here;
        result = call(with);
    }
    guard_mark = outer;
    return result;
}

static int byte_read(void *at) { return *(volatile const uint8_t *)at; }

/* Whether the page of a mapped byte can be read. */
static inline int readable(const void *at) { return guarded(byte_read, (void *)at) != -1; }
#endif
