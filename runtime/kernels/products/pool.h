/* A persistent pool of threads for short jobs. One caller at a time.
 *
 * A job is cut into blocks; the caller and the workers claim blocks until none is left, so a worker
 * that wakes late costs nothing but the block it holds. One that loses its core with a block in
 * hand holds up the caller, who works alone for a while where sharing was no faster. Workers spin
 * briefly after a job and then sleep. Which thread computes a block never changes its result. */
#ifndef ST_POOL_H
#define ST_POOL_H

typedef struct st_pool st_pool;
typedef void (*st_block_function)(void *job, int block);

/* Every compiled module has a copy of pool.c of its own, and one module's pool may run in another.
 * A pool leads to the copy that made it, which alone knows of forks that its workers do not
 * survive. */
struct st_pool {
    void (*run)(st_pool *pool, st_block_function function, void *job, int blocks);
    void (*free)(st_pool *pool);
    int threads;
};

/* A pool of `threads` threads, the caller included; NULL when memory is short. Workers start with
 * the first job, also anew in a child process after fork. */
st_pool *st_pool_new(int threads);

/* Ends the workers and waits for them. */
static inline void st_pool_free(st_pool *pool)
{
    if (pool) pool->free(pool);
}

static inline int st_pool_threads(const st_pool *pool)
{
    return pool->threads;
}

/* Calls function(job, block) once for every block in 0 .. blocks - 1 and returns when all are done.
 */
static inline void st_pool_run(st_pool *pool, st_block_function function, void *job, int blocks)
{
    pool->run(pool, function, job, blocks);
}

#endif
