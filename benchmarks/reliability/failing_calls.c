/* Lets chosen system calls fail, for the whole process and the children it forks, whoever makes them.
 *
 * A seccomp filter turns every call of the list below into a SIGSYS; its handler counts those that concern files under
 * one folder and either makes the call after all or answers with an error. Unlike functions put in the place of the C
 * library's, this also sees what stdio and statically linked code write.
 *
 * struct order is shared with the process that gives the orders: see failing_calls.py, which has the same fields.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum group { WRITING = 1, SYNCING = 2, NAMING = 4, REMOVING = 8 };
enum { LET_PASS = 0x5afe0c11, PATH_BYTES = 4096 };

struct order {
    int64_t armed;      /* nothing is counted, and nothing fails, while this is 0 */
    int64_t groups;     /* which calls are counted */
    int64_t nth;        /* the first that fails, from 1; 0 for none */
    int64_t lasting;    /* whether all after it fail too, as on a disk that is full or gone */
    int64_t half;       /* whether the first is a write of half of its bytes, and only later ones fail */
    int64_t error;      /* errno */
    int64_t seen;       /* calls counted */
    int64_t failed;     /* of them, those that failed */
    char folder[PATH_BYTES]; /* with a slash at its end */
};

/* The descriptor or the path that a call changes is its argument `at`; for paths `dir` is that of the directory's
 * descriptor, or -1. */
struct call {
    int number;
    enum group group;
    int by_path, at, dir;
};

static const struct call calls[] = {
    {SYS_write, WRITING, 0, 0, -1},       {SYS_pwrite64, WRITING, 0, 0, -1},  {SYS_writev, WRITING, 0, 0, -1},
    {SYS_pwritev, WRITING, 0, 0, -1},     {SYS_sendfile, WRITING, 0, 0, -1},  {SYS_ftruncate, WRITING, 0, 0, -1},
    {SYS_fallocate, WRITING, 0, 0, -1},   {SYS_fsync, SYNCING, 0, 0, -1},     {SYS_fdatasync, SYNCING, 0, 0, -1},
    {SYS_renameat, NAMING, 1, 3, 2},      {SYS_renameat2, NAMING, 1, 3, 2},   {SYS_linkat, NAMING, 1, 3, 2},
    {SYS_mkdirat, NAMING, 1, 1, 0},       {SYS_openat, NAMING, 1, 1, 0},      {SYS_unlinkat, REMOVING, 1, 1, 0},
#ifdef __x86_64__ /* newer machines have only the calls above */
    {SYS_rename, NAMING, 1, 1, -1},       {SYS_link, NAMING, 1, 1, -1},       {SYS_mkdir, NAMING, 1, 0, -1},
    {SYS_open, NAMING, 1, 0, -1},         {SYS_unlink, REMOVING, 1, 0, -1},   {SYS_rmdir, REMOVING, 1, 0, -1},
#endif
};
enum { CALLS = sizeof calls / sizeof *calls };

static struct order *order;

static long make(long number, const long *a) {
    long answer = syscall(number, a[0], a[1], a[2], a[3], a[4], (long)LET_PASS);
    return answer == -1 ? -errno : answer;
}

static int inside(const char *path) {
    return !strncmp(path, order->folder, strlen(order->folder));
}

static int descriptor_inside(int descriptor) {
    char link[64], path[PATH_BYTES];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length < 0)
        return 0;
    strcpy(path + length, "/"); /* the folder itself counts too */
    return inside(path);
}

static int concerned(const struct call *call, const long *a) {
    if (!call->by_path)
        return descriptor_inside((int)a[call->at]);
    if (call->number == SYS_openat && !(a[2] & O_CREAT))
        return 0;
#ifdef __x86_64__
    if (call->number == SYS_open && !(a[1] & O_CREAT))
        return 0;
#endif
    const char *path = (const char *)a[call->at];
    if (*path == '/')
        return inside(path);
    return call->dir >= 0 && (int)a[call->dir] != AT_FDCWD && descriptor_inside((int)a[call->dir]);
}

static long answer(long number, long *a) {
    const struct call *call = calls;
    while (call->number != number)
        call++;
    if (!__atomic_load_n(&order->armed, __ATOMIC_SEQ_CST) || !(order->groups & call->group) || !concerned(call, a))
        return make(number, a);
    int64_t place = __atomic_add_fetch(&order->seen, 1, __ATOMIC_SEQ_CST);
    if (!order->nth || place < order->nth || (place > order->nth && !order->lasting))
        return make(number, a);
    if (place == order->nth && order->half && (number == SYS_write || number == SYS_pwrite64) && a[2] > 1) {
        a[2] /= 2;
        return make(number, a);
    }
    __atomic_add_fetch(&order->failed, 1, __ATOMIC_SEQ_CST);
    return -order->error;
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    int kept = errno;
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    greg_t *r = machine->gregs;
    long a[6] = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]};
    r[REG_RAX] = answer(info->si_syscall, a);
#elif defined(__aarch64__)
    unsigned long long *r = machine->regs;
    long a[6] = {(long)r[0], (long)r[1], (long)r[2], (long)r[3], (long)r[4], (long)r[5]};
    r[0] = (unsigned long long)answer(info->si_syscall, a);
#else
#error "the registers of this machine are not known here"
#endif
    errno = kept;
}

/* From now on `given` rules. 0, or the errno of what could not be done. It can't be undone. */
int obey(struct order *given) {
    struct sock_filter filter[2 * CALLS + 5];
    int n = 0;
    order = given;
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGSYS, &action, NULL))
        return errno;
    /* What the handler itself calls carries a mark where no call of the list has an argument. */
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5]));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LET_PASS, CALLS + 1, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++)
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return errno;
    /* The threads that run already are ruled as well. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program))
        return errno;
    return 0;
}
