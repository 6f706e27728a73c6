"""The public functions: values on every backend, arguments, errors, bits."""
