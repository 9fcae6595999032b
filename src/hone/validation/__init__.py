"""Checks on the rows before training: suites of expectations, evaluated by Great Expectations."""
