"""Configuration of the Jupyter server on the node: where the extension for the status bar lies, beside this file."""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
if _HERE not in sys.path:
    sys.path.append(_HERE)
