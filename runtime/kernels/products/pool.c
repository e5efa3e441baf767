#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "floats.h"

/* Turns of the spin loops, each one pause instruction: tens of microseconds. */
#define ST_WORKER_SPINS 2000
#define ST_CALLER_SPINS 4000
/* Work with the others is judged over so long a time. Where it was no faster than alone, the caller
 * works alone for a while, four times as long after every further such time. */
#define ST_JUDGED_NS 2000000
#define ST_MIN_REST_NS 10000000
#define ST_MAX_REST_NS 640000000
/* Kernels keep up to 260 KB of accumulators and packed rows on the stack, in which the libraries of
 * a process have their thread-local memory as well: the thread sanitizer 790 KB. */
#define ST_STACK_BYTES (3 << 19)

typedef struct {
    st_pool pool; /* what others see of it */
    /* Number of the job (high half) and blocks not yet claimed (low half). While blocks are left,
     * function and job belong to that number; claiming one proves that they still do. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Atomic(st_block_function) function;
    _Atomic(void *) job;
    _Alignas(64) _Atomic int done;
    _Atomic int blocks;
    _Atomic int caller_sleeps;
    _Alignas(64) _Atomic int sleepers;
    _Atomic int stop;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    int started;
    int generation;
    pthread_t *workers;
    /* The caller's: time of jobs shared since the last judgement and what they would have taken
     * alone; until when workers rest, and how long they last did. */
    int64_t together, alone, rests_until, rest;
} st_workers;

/* Grows in every child process: threads of the parent do not exist there. */
static _Atomic int fork_generation;
static pthread_once_t watch_forks = PTHREAD_ONCE_INIT;

static void forked(void)
{
    atomic_fetch_add(&fork_generation, 1);
}

static void start_watching(void)
{
    pthread_atfork(NULL, NULL, forked);
}

static inline void pause_core(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Claims blocks of the current job until none is left; returns how many there were. */
static int work_off(st_workers *pool)
{
    int worked = 0;
    uint64_t ticket = atomic_load(&pool->ticket);
    while ((uint32_t)ticket) {
        st_block_function function = atomic_load(&pool->function);
        void *job = atomic_load(&pool->job);
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1)) continue;
        int blocks = atomic_load(&pool->blocks);
        function(job, blocks - (int)(uint32_t)ticket);
        worked++;
        if (atomic_fetch_add(&pool->done, 1) + 1 == blocks && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
        ticket = atomic_load(&pool->ticket);
    }
    return worked;
}

static int has_work(st_workers *pool)
{
    return (uint32_t)atomic_load(&pool->ticket) != 0 || atomic_load(&pool->stop);
}

static void sleep_until_work(st_workers *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_work(pool)) pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument)
{
    st_workers *pool = argument;
    st_plain_rounding();
    while (!atomic_load(&pool->stop)) {
        if (work_off(pool)) continue;
        int spins = 0;
        while (!has_work(pool) && spins++ < ST_WORKER_SPINS) pause_core();
        if (!has_work(pool)) sleep_until_work(pool);
    }
    return NULL;
}

static void wake_workers(st_workers *pool)
{
    if (!atomic_load(&pool->sleepers)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

static void prepare(st_workers *pool)
{
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    atomic_store(&pool->ticket, 0);
    atomic_store(&pool->sleepers, 0);
    atomic_store(&pool->caller_sleeps, 0);
    atomic_store(&pool->stop, 0);
    pool->started = 0;
    pool->generation = atomic_load(&fork_generation);
}

/* Starts missing workers, deaf to signals, which are the main thread's business. Where the system
 * refuses a thread, the caller works alone. */
static void start_workers(st_workers *pool)
{
    if (pool->generation != atomic_load(&fork_generation)) prepare(pool);
    if (pool->started) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, ST_STACK_BYTES);
    for (int i = 0; i < pool->pool.threads - 1; i++) {
        if (pthread_create(&pool->workers[i], &attributes, worker_main, pool)) break;
        pool->started++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void free_workers(st_pool *self)
{
    st_workers *pool = (st_workers *)self;
    if (pool->generation == atomic_load(&fork_generation)) {
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->stop, 1);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i], NULL);
        pthread_cond_destroy(&pool->finished);
        pthread_cond_destroy(&pool->work);
        pthread_mutex_destroy(&pool->lock);
    }
    free(pool->workers);
    free(pool);
}

static void wait_for_workers(st_workers *pool, int blocks)
{
    for (int spins = 0; spins < ST_CALLER_SPINS; spins++) {
        if (atomic_load(&pool->done) == blocks) return;
        pause_core();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, 1);
    while (atomic_load(&pool->done) != blocks) pthread_cond_wait(&pool->finished, &pool->lock);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->lock);
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Adds a job of which the caller did `claimed` blocks in `worked`; workers whose cores are taken,
 * and who lose them with a block in hand, make it last longer than all blocks at the caller's pace.
 */
static void judge(st_workers *pool, int claimed, int blocks, int64_t worked, int64_t lasted,
                  int64_t now)
{
    if (!claimed) return;
    pool->alone += worked / claimed * blocks;
    pool->together += lasted;
    if (pool->together < ST_JUDGED_NS) return;
    if (pool->alone <= pool->together) {
        pool->rest = pool->rest < ST_MIN_REST_NS ? ST_MIN_REST_NS : 4 * pool->rest;
        if (pool->rest > ST_MAX_REST_NS) pool->rest = ST_MAX_REST_NS;
        pool->rests_until = now + pool->rest;
    } else {
        pool->rest -= pool->rest / 4;
    }
    pool->alone = pool->together = 0;
}

static void run(st_pool *self, st_block_function function, void *job, int blocks)
{
    st_workers *pool = (st_workers *)self;
    int64_t start = pool->pool.threads == 1 || blocks <= 1 ? 0 : nanoseconds();
    if (!start || start < pool->rests_until) {
        for (int block = 0; block < blocks; block++) function(job, block);
        return;
    }
    start_workers(pool);
    atomic_store(&pool->function, function);
    atomic_store(&pool->job, job);
    atomic_store(&pool->blocks, blocks);
    atomic_store(&pool->done, 0);
    uint64_t number = (atomic_load(&pool->ticket) >> 32) + 1;
    atomic_store(&pool->ticket, number << 32 | (uint32_t)blocks);
    wake_workers(pool);
    int claimed = work_off(pool);
    int64_t worked = nanoseconds() - start;
    wait_for_workers(pool, blocks);
    int64_t now = nanoseconds();
    judge(pool, claimed, blocks, worked, now - start, now);
}

st_pool *st_pool_new(int threads)
{
    pthread_once(&watch_forks, start_watching);
    st_workers *pool = NULL;
    if (posix_memalign((void **)&pool, 64, sizeof *pool)) return NULL;
    memset(pool, 0, sizeof *pool);
    pool->pool = (st_pool){run, free_workers, threads};
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) {
        free(pool);
        return NULL;
    }
    prepare(pool);
    return &pool->pool;
}
