# What the generator calls of the C library and of the kernel.

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    static inline uint64_t clock_ns(clockid_t clock) {
        struct timespec now;
        clock_gettime(clock, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    #define clz64(value) ((uint32_t)__builtin_clzll(value))
    /* To the nanosecond where the kernel can, else to the next millisecond. */
    static inline int epoll_wait_ns(int epoll, struct epoll_event *events, int room, uint64_t ns) {
    #ifdef SYS_epoll_pwait2
        struct timespec limit = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        int ready = (int)syscall(SYS_epoll_pwait2, epoll, events, room, &limit, NULL, 0);
        if (ready >= 0 || errno != ENOSYS)
            return ready;
    #endif
        return epoll_wait(epoll, events, room, (int)((ns + 999999u) / 1000000u));
    }
    """
    void* memmem(const void* where, size_t size, const void* what, size_t what_size) noexcept nogil
    ctypedef int clockid_t
    clockid_t CLOCK_MONOTONIC
    clockid_t CLOCK_THREAD_CPUTIME_ID
    uint64_t clock_ns(clockid_t clock) noexcept nogil
    uint32_t clz64(uint64_t value) noexcept nogil

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int what, int fd, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int room, int timeout_ms)
    int epoll_wait_ns(int epoll, epoll_event* events, int room, uint64_t ns)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    ssize_t send(int fd, const void* bytes, size_t size, int flags)
    ssize_t recv(int fd, void* bytes, size_t size, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
