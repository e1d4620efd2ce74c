"""vLLM as a program: its command, its API, how it loads weights, and whether it answers as it should."""
