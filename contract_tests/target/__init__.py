"""The implementation that is judged: its client, its responses, and what they may cost."""
