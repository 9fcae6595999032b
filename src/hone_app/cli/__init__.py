"""Groups of commands beside those of the line: each module's `add` puts its own into the parser of `hone`."""
