"""Exit codes beside 0 (done), 1 (failed) and 2 (bad usage)."""

INTERRUPTED = 130  # what a shell reports for Ctrl-C
