"""The processes with limits in which programs of clients and packages run."""
