"""A short text of two documents, with more bytes than characters."""

TEXT = "A fox sat.\n\nIt ran.\n<|endoftext|>\nAn owl flew over d\u00e9j\u00e0.\n<|endoftext|>\n"
