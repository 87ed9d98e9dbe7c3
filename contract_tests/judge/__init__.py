"""Whether an answer is one of those that are allowed."""
