"""The contract tests themselves, which pytest collects."""
