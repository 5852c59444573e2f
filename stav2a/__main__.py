"""`python -m stav2a` is `stav2a`."""

import sys

from stav2a.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
