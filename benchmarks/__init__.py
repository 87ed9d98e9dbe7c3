"""What docs/PERFORMANCE.md reports, measured anew: for developers, and no part of the package."""
