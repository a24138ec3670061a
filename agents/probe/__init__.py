"""Linear probes of what an encoder knows about the state of its environment."""
