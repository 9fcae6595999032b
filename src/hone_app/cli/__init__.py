"""Groups of commands: `add_commands` of each module adds its own to the parser of `hone`."""
