"""What callers bring: kinds of arrays, checks, buffers and results."""
