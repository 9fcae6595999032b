"""`python -m hone_app`: the `hone` command where its script is not on PATH."""

import sys

from hone_app.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
