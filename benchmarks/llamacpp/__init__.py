"""Contenders that llama.cpp runs: files of random weights, and how they are run."""
