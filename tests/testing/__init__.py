"""The references and error bounds that everything else is tested against."""
