"""One module per study: its grid and its command line. Run them from the repository: `python -m experiments.NAME`."""
