"""The start command `python3 app.py` in this folder; the program is `python -m mqtt_server`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # In this folder the checkout's packages are found only where they are installed.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from mqtt_server.__main__ import main

    main()
