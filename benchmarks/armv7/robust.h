/* A lock of LMDB's whose holder was killed goes to who waits for it: the kernel sees to that, by a list
 * that each program gives it, but qemu does not pass the list on. So here who waits looks now and then
 * whether the holder lives, and if not does to the lock what the kernel would have done; from there on
 * it is the C library's and LMDB's own code. Included before LMDB's source by install.sh. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int robust_is_dead(unsigned thread)
{
    char path[32], line[512], *end = NULL;
    snprintf(path, sizeof path, "/proc/%u/stat", thread);
    FILE *stat = fopen(path, "r");
    if (!stat)
        return errno == ENOENT;
    if (fgets(line, sizeof line, stat))
        end = strrchr(line, ')');
    fclose(stat);
    return end && strchr("ZX", end[2]) != NULL; /* killed, and nobody has asked how it ended */
}

static int robust_lock(pthread_mutex_t *mutex)
{
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        int error = pthread_mutex_timedlock(mutex, &until);
        if (error != ETIMEDOUT)
            return error;
        int seen = mutex->__data.__lock;
        if ((seen & FUTEX_TID_MASK) && robust_is_dead(seen & FUTEX_TID_MASK))
            __sync_bool_compare_and_swap(
                &mutex->__data.__lock, seen, (seen & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
    }
}

#define pthread_mutex_lock robust_lock
