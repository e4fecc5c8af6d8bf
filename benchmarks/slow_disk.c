/* A slower disk: run a command, each of whose syncs takes so many microseconds longer.
 *
 *     slow_disk 5000 COMMAND...
 *
 * The kernel hands each fdatasync, fsync, syncfs, sync_file_range and synchronous msync of the
 * command and its children to a supervisor (seccomp's user notification), which lets it go on when
 * the time is over. So it reaches programs that call the kernel themselves, as those in Go do, and
 * costs other calls next to nothing. Syncs that overlap wait side by side, as on a disk with a
 * queue. The command keeps the process id; the supervisor ends with the last process it watches. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "slow_disk knows x86-64 and arm64"
#endif

/* More calls wait at one time than any program has threads that sync; those beyond wait unread. */
#define WAITING 4096

static struct {
    uint64_t id;
    int64_t due;
} waiting[WAITING];

static void die(const char *what) {
    fprintf(stderr, "slow_disk: %s: %s\n", what, strerror(errno));
    exit(71);
}

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000ll + at.tv_nsec;
}

/* All waits are equally long, so that the first to come is the first to go. */
static void supervise(int listener, int64_t delay) {
    struct seccomp_notif_sizes sizes;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes))
        die("sizes of notifications");
    struct seccomp_notif *asked = malloc(sizes.seccomp_notif);
    struct seccomp_notif_resp *answer = malloc(sizes.seccomp_notif_resp);
    unsigned first = 0, count = 0;
    if (asked == NULL || answer == NULL)
        die("memory");
    prctl(PR_SET_TIMERSLACK, 1ul);
    for (;;) {
        struct pollfd ready = {listener, count < WAITING ? POLLIN : 0, 0};
        int64_t left = count ? waiting[first].due - now() : 1000000000ll;
        struct timespec limit = {0, left > 0 ? left : 0};
        if (left >= 1000000000ll)
            limit = (struct timespec){left / 1000000000ll, left % 1000000000ll};
        if (ppoll(&ready, 1, &limit, NULL) < 0 && errno != EINTR)
            die("poll");
        if (ready.revents & POLLIN) {
            memset(asked, 0, sizes.seccomp_notif);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, asked) == 0) {
                waiting[(first + count) % WAITING].id = asked->id;
                waiting[(first + count++) % WAITING].due = now() + delay;
            }
        } else if (ready.revents & POLLHUP) {
            _exit(0);
        }
        for (; count && waiting[first].due <= now(); first = (first + 1) % WAITING, count--) {
            memset(answer, 0, sizes.seccomp_notif_resp);
            answer->id = waiting[first].id;
            answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            /* It fails if whoever called was killed meanwhile, and then nobody waits for it. */
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
        }
    }
}

static int install(void) {
#define ASKED(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), \
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ASKED(SYS_fdatasync), ASKED(SYS_fsync), ASKED(SYS_syncfs), ASKED(SYS_sync_file_range),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_msync, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MS_SYNC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        die("no new privileges");
    /* Else a signal would begin a wait anew; older kernels cannot do without. */
    long found = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                         flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (found < 0 && errno == EINVAL)
        found = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (found < 0)
        die("the kernel does not let syncs be watched");
    return (int)found;
}

static void pass(int to, int listener) {
    char byte = 0, room[CMSG_SPACE(sizeof listener)] = {0};
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = room,
                             .msg_controllen = sizeof room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof listener);
    memcpy(CMSG_DATA(head), &listener, sizeof listener);
    if (sendmsg(to, &message, 0) != 1)
        die("passing the listener on");
}

static int passed(int from) {
    char byte, room[CMSG_SPACE(sizeof(int))];
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = room,
                             .msg_controllen = sizeof room};
    int listener;
    struct cmsghdr *head;
    if (recvmsg(from, &message, 0) != 1 || (head = CMSG_FIRSTHDR(&message)) == NULL)
        _exit(71);
    memcpy(&listener, CMSG_DATA(head), sizeof listener);
    return listener;
}

int main(int count, char **words) {
    char *end;
    int ends[2], listener;
    double delay;
    if (count < 3 || (delay = strtod(words[1], &end)) < 0 || *end) {
        fprintf(stderr, "usage: slow_disk MICROSECONDS COMMAND...\n");
        return 64;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        die("a pair of sockets");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        /* A child of nobody: the command should find no children that it did not start. */
        if (fork())
            _exit(0);
        signal(SIGTERM, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        close(ends[1]);
        listener = passed(ends[0]);
        /* Who reads the command's output to its end must not wait for this process. */
        for (int fd = 0; fd < 3; fd++)
            close(fd);
        supervise(listener, (int64_t)(delay * 1000));
    }
    waitpid(child, NULL, 0);
    listener = install();
    pass(ends[1], listener);
    close(listener);
    execvp(words[2], words + 2);
    die(words[2]);
}
