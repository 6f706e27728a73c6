"""The programs in bench/ and the tables they make."""
