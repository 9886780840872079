"""``python -m cim_bench.cli``, as ``accelerate launch -m`` starts it."""

import sys

from cim_bench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
