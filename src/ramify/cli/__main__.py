"""`python -m ramify.cli` is `ramify`."""

import sys

from ramify.cli.main import main

sys.exit(main())
