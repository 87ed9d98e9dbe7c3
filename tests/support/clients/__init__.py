"""OctoAI's own clients, each in its own process, which reads lines of JSON with what to call."""
