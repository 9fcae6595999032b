"""`python -m hone`: the `hone` command where its script is not on PATH.

By name, since the library does not import the application.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("hone_app", run_name="__main__", alter_sys=True)
