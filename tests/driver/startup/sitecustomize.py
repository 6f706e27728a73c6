"""What each Python process does first that `python -m tests.driver` has started."""

import os

from tests import driver

driver.install()
driver.set_devices()
if os.environ.get("PLAYED_DRIVER") == "--idle":
    driver.set_idle()
