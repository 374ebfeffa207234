"""Reading and writing what outlives a run."""
