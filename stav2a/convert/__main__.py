"""`python -m stav2a.convert`."""

import sys

from stav2a.convert import main

if __name__ == "__main__":
    sys.exit(main())
