"""Where checkpoints come from: each format of files is read here, without torch where it can."""
