"""The rules of the API, their sources, and which of them a refusal stands for."""
