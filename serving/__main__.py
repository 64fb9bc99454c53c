"""`python -m gossamer.serving`: the same as the command `gossamer`."""

from gossamer.serving.cli import main

main()
