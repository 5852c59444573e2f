"""`python -m stav2a.generate`."""

import sys

from stav2a.generate import main

if __name__ == "__main__":
    sys.exit(main())
