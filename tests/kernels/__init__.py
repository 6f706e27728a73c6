"""The kernel files: contracts, machine code, planted bugs."""
