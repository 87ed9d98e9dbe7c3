"""OctoAI's own clients, each in a process of its own, and lines of JSON tell it what to call."""
