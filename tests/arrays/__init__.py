"""The arrays that callers bring, of every library."""
