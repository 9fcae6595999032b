"""The stages as Prefect tasks: retries, run names, GPU slots and UI artifacts. The work itself is in `hone`."""
