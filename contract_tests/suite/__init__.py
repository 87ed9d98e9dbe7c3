"""The tests themselves, which any implementation can be judged by."""
