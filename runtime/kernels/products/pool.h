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

/* A pool of `threads` threads, the caller included; NULL when memory is short. Workers start with
 * the first job, also anew in a child process after fork. */
st_pool *st_pool_new(int threads);
/* Ends the workers and waits for them. */
void st_pool_free(st_pool *pool);
int st_pool_threads(const st_pool *pool);
/* Calls function(job, block) once for every block in 0 .. blocks - 1 and returns when all are done.
 */
void st_pool_run(st_pool *pool, st_block_function function, void *job, int blocks);

#endif
