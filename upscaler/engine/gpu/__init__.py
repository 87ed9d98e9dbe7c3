"""Networks on whole maps by this project's own kernels, on CUDA devices."""
