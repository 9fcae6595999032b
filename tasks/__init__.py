"""The stages as Prefect tasks: retries, cache, run names and UI artifacts. The work is in `hone`."""
