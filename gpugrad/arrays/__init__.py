"""The caller's arrays: kinds, views, checks, buffers and results."""
