"""For all tests: what they start hears the signals that it would hear in a terminal."""

from __future__ import annotations

import signal

# Children inherit what is ignored: under nohup no node would end by SIGHUP, as nohup wants it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
