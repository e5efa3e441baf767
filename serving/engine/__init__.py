"""Who is served when: the scheduler, the decode loop, sampling and the prefix cache."""
