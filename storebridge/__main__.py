"""`python -m storebridge`: the command line."""

import sys

from storebridge.cli import main

sys.exit(main())
