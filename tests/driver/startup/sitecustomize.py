"""What each Python process does first that `python -m tests.driver` has started."""

from tests import driver

driver.install()
driver.set_devices()
