"""What must hold for rows before anything is learned from them: suites, and the verdicts of Great Expectations."""
