"""Whole maps on a CPU, by kernels that are compiled for it when they are first used."""
