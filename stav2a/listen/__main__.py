"""`python -m stav2a.listen`."""

import sys

from stav2a.listen import main

if __name__ == "__main__":
    sys.exit(main())
