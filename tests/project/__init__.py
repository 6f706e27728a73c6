"""The project as a whole: imports, packaging, documents, examples."""
