"""``python -m fastloss`` is the command ``fastloss``."""

from __future__ import annotations

import sys

from fastloss.cli import main

if __name__ == "__main__":
    sys.exit(main())
