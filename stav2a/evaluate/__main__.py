"""`python -m stav2a.evaluate`."""

import sys

from stav2a.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
