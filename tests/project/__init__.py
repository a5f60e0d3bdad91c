"""The project as a whole: its contract, docs, lock, notebook and set-up."""
