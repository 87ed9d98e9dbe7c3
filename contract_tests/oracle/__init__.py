"""What a request may be answered with, derived from the rules alone."""
