"""Where a client's or a package's program runs: a process with limits of its own."""
