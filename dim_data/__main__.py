"""``python -m dim_data`` does what ``dim-data`` does."""

from __future__ import annotations

import sys

from dim_data.cli import main

if __name__ == "__main__":
    sys.exit(main())
