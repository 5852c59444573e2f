"""`python -m stav2a.prepare`."""

import sys

from stav2a.prepare import main

if __name__ == "__main__":
    sys.exit(main())
