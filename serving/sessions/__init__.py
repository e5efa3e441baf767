"""Sessions: their store, their memory and disk, and their turns."""
